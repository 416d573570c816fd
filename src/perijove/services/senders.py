"""
The ways a notice leaves the house: e-mail through SMTP, and a signed webhook.

Both block and have a deadline: run them in a thread. What they raise tells whether to try again.
"""

import hashlib
import hmac
import re
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from pydantic import Field, SecretStr, model_validator

from perijove.domain.errors import HubError
from perijove.kit.config import Section

_ADDRESS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,255}")
_LONGEST_SECRET: Final = 4096


class Undeliverable(HubError):
    """It will never arrive: trying again is useless."""

    code = "undeliverable"


class NotDelivered(HubError):
    """It did not arrive this time; it may the next."""

    code = "not-delivered"


# --- settings ---------------------------------------------------------------------------------


def _secret(given: SecretStr, file: Path | None) -> str:
    """Return a secret of the configuration, from its file if it names one."""
    if file is None:
        return given.get_secret_value()
    with file.open(encoding="utf-8") as opened:
        return opened.read(_LONGEST_SECRET).strip()


class EmailSection(Section):
    """The mail server through which notices are sent."""

    host: str
    """Its name."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Its port."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted; `none` is for a relay on this machine."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    user: str = ""
    """Whom to sign in as; without one nobody is."""
    password: SecretStr = SecretStr("")
    """Their password; better `password_file`."""
    password_file: Path | None = None
    """A file that holds it."""
    sender: str
    """The address notices come from."""
    to: str = "{name}"
    """The address of a person, with their user name for `{name}`: `{name}@example.org`."""
    timeout: Annotated[float, Field(gt=0, le=120)] = 20
    """Seconds the mail server has for each answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not _ADDRESS.fullmatch(self.sender):
            raise ValueError("sender must be an e-mail address")
        if self.security == "none" and (self.user or self.password_file):
            raise ValueError("a password is not sent without encryption: set security")
        return self

    def address_of(self, name: str) -> str | None:
        """Return the address of a person; None for one whose name makes none."""
        address = self.to.replace("{name}", name)
        return address if _ADDRESS.fullmatch(address) else None


class WebhookSection(Section):
    """Where notices are posted as JSON, signed."""

    url: str
    """An `https://` address; `http://` only for a receiver that is near."""
    secret: SecretStr = SecretStr("")
    """The key of the signature; better `secret_file`."""
    secret_file: Path | None = None
    """A file that holds it."""
    timeout: Annotated[float, Field(gt=0, le=120)] = 10
    """Seconds the receiver has to answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError("url must begin with https:// or http://")
        if not self.secret.get_secret_value() and self.secret_file is None:
            raise ValueError("a webhook needs a secret, or a secret_file")
        return self


class NotifySection(Section):
    """How people are told that a server is ready or that its time is nearly over."""

    email: EmailSection | None = None
    """E-mail, where a mail server is named."""
    webhook: WebhookSection | None = None
    """A webhook, for a site's own chat or messages."""


# --- sending ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One message to one person."""

    id: str
    """Makes the message's id: the same message sent twice by a crash can be told."""
    to: str
    subject: str
    text: str


def send_mail(section: EmailSection, mail: Mail) -> None:
    """Hand a message to the mail server; raises `Undeliverable` or `NotDelivered`."""
    try:
        message = _message(section, mail)
        with _connect(section) as server:
            if section.user:
                server.login(section.user, _secret(section.password, section.password_file))
            server.send_message(message)
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
        raise _refusal(error) from None
    except (OSError, smtplib.SMTPException) as error:
        raise NotDelivered(f"the mail server: {error}"[:300]) from None
    except ValueError as error:  # nothing that a message may hold
        raise Undeliverable(str(error)[:300]) from None


def _refusal(error: smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError) -> HubError:
    """Return what a mail server's answer means: codes from 500 on are for good."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, words = next(iter(error.recipients.values()))
        said = words.decode("utf-8", "replace")
    else:
        code, said = error.smtp_code, _text(error.smtp_error)
    kind = Undeliverable if code >= HTTPStatus.INTERNAL_SERVER_ERROR else NotDelivered
    return kind(f"the mail server: {code} {said}"[:300])


def _text(words: bytes | str) -> str:
    return words.decode("utf-8", "replace") if isinstance(words, bytes) else words


def _message(section: EmailSection, mail: Mail) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = section.sender, mail.to
    message["Subject"] = mail.subject
    message["Message-ID"] = f"<{mail.id}@{section.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message


def _connect(section: EmailSection) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=section.ca_file)
    if section.security == "tls":
        return smtplib.SMTP_SSL(
            section.host, section.port, timeout=section.timeout, context=context
        )
    server = smtplib.SMTP(section.host, section.port, timeout=section.timeout)
    if section.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A receiver that sends us elsewhere is not the one that was configured."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        """Follow nothing: the answer counts as it is."""


_OPEN: Final = urllib.request.build_opener(_NoRedirect).open


def signature(secret: str, at: str, body: bytes) -> str:
    """Return what `X-Perijove-Signature` says: HMAC-SHA256 over the time, a full stop, the body."""
    signed = hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"


def post_webhook(section: WebhookSection, event_id: str, event: Mapping[str, Any]) -> None:
    """Post an event to the receiver; raises `Undeliverable` or `NotDelivered`."""
    body, at = msgspec.json.encode(event), str(int(time.time()))
    try:
        secret = _secret(section.secret, section.secret_file)
        request = urllib.request.Request(  # noqa: S310 - the section allows http and https only
            section.url,
            data=body,
            method="POST",
            headers={
                "Content-Type": "application/json",
                "User-Agent": "perijove",
                "X-Perijove-Delivery": event_id,
                "X-Perijove-Timestamp": at,
                "X-Perijove-Signature": signature(secret, at, body),
            },
        )
        with _OPEN(request, timeout=section.timeout):
            return
    except urllib.error.HTTPError as error:
        error.close()
        tries_again = error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in (
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.TOO_MANY_REQUESTS,
        )
        kind = NotDelivered if tries_again else Undeliverable
        raise kind(f"the webhook's receiver answered {error.code}") from None
    except (OSError, ValueError) as error:
        raise NotDelivered(f"the webhook's receiver: {error}"[:300]) from None
