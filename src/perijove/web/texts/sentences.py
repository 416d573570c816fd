"""
Codes to sentences: states, ends, events, reasons, errors, each in one table.

The tables hold English with ``%(name)s`` for what is filled in; a test holds them against the
codes of the domain. What a platform said itself is never translated and never put into a
sentence: pages show it beside it, as quoted.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from perijove.domain.errors import HubError
from perijove.domain.launch import Cause, End, Reason, Status
from perijove.domain.policy import Rule
from perijove.domain.reasons import of_end
from perijove.web.texts.catalogue import Texts
from perijove.web.texts.reasons import CANNOT, PRECISE, WAITING
from perijove.web.texts.sentence import N_, Said, Sentence

_UNKNOWN: Final = "?"
"""Stands for a value that the row does not have."""
_SERVER: Final = "server"
"""A server's name, which may be empty: somebody's default server."""
_PLACEHOLDER: Final = re.compile(r"%\((\w+)\)s")

# --- states -----------------------------------------------------------------------------------

STATES: Final[Mapping[Status, str]] = {
    Status.REQUESTED: N_("Waiting for its turn"),
    Status.SUBMITTED: N_("Being handed over"),
    Status.QUEUED: N_("In the queue"),
    Status.HELD: N_("Held"),
    Status.STARTING: N_("Starting"),
    Status.CONNECTING: N_("Connecting"),
    Status.READY: N_("Running"),
    Status.SUSPENDED: N_("Suspended"),
    Status.ENDING: N_("Stopping"),
    Status.ENDED: N_("Stopped"),
}
"""The big word. One or two words."""

WHY: Final[Mapping[Status, Sentence]] = {
    Status.REQUESTED: Sentence(N_("Your request is accepted and will be handed over in a moment.")),
    Status.SUBMITTED: Sentence(N_("Your request is being handed to the computing system.")),
    Status.QUEUED: Sentence(
        N_("Your request is in the queue and starts when there is room for it."),
        N_("You can close this page: your place in the queue stays yours."),
    ),
    Status.HELD: Sentence(
        N_("The computing system holds your request and will not start it by itself."),
        N_("Ask your administrator to release it, or cancel it."),
    ),
    Status.STARTING: Sentence(N_("Your server has a place to run and is starting up.")),
    Status.CONNECTING: Sentence(N_("Your server has started; we are waiting for it to answer.")),
    Status.READY: Sentence(N_("Your server is ready.")),
    Status.SUSPENDED: Sentence(
        N_("The computing system has paused your server. It goes on by itself later."),
        N_("Nothing in memory is lost while it is paused."),
    ),
    Status.ENDING: Sentence(N_("Your server is being stopped.")),
    Status.ENDED: Sentence(N_("Your server has stopped.")),
}
"""Why one waits, where nothing more precise is known."""

# --- ends -------------------------------------------------------------------------------------

CAUSES: Final[Mapping[Cause, Sentence]] = {
    Cause.USER: Sentence(N_("You stopped it."), N_("Start it again whenever you like.")),
    Cause.ADMIN: Sentence(
        N_("An administrator stopped it."), N_("Ask your administrator if you do not know why.")
    ),
    Cause.IDLE: Sentence(
        N_("It was stopped because nobody used it for a while."),
        N_("Your saved files are still there. Start it again whenever you like."),
    ),
    Cause.MAX_AGE: Sentence(
        N_("It was stopped because it reached the longest time a server may run here."),
        N_("Your saved files are still there. Start it again whenever you like."),
    ),
    Cause.WALLTIME: Sentence(
        N_("The time you asked for was over."),
        N_("Ask for more time if your work needs it."),
    ),
    Cause.OUT_OF_MEMORY: Sentence(
        N_("It needed more memory than it was given."),
        N_("Ask for more memory, or work on less data at a time."),
    ),
    Cause.NODE_FAIL: Sentence(
        N_("The machine it ran on failed."), N_("This was not your doing. Start it again.")
    ),
    Cause.PREEMPTED: Sentence(
        N_("It had to make room for work with a higher priority."), N_("Start it again later.")
    ),
    Cause.CANCELLED_OUTSIDE: Sentence(
        N_("It was cancelled outside this site, with the tools of the computing system."),
        N_("If it was not you, ask your administrator."),
    ),
    Cause.EXITED: Sentence(
        N_("Its program ended by itself with exit code %(code)s."),
        N_("The last lines of the log usually say why."),
    ),
    Cause.SIGNAL: Sentence(
        N_("Its program was ended from outside by signal %(code)s."),
        N_("Signal 9 is often a lack of memory: ask for more, or work on less data at a time."),
    ),
    Cause.NEVER_STARTED: Sentence(
        N_("It could not be started."),
        N_("Try again. If it happens twice, send the diagnostic id to your administrator."),
    ),
    Cause.POLICY: Sentence(N_("A rule of this site ended it."), N_("Ask your administrator.")),
    Cause.MAINTENANCE: Sentence(
        N_("It was stopped for maintenance."), N_("Start it again when the maintenance is over.")
    ),
    Cause.UNKNOWN: Sentence(
        N_("It disappeared, and nothing was left that could tell us why."),
        N_("Start it again. If it happens twice, send the diagnostic id to your administrator."),
    ),
}

CLEAN_EXIT: Final = Sentence(N_("It was shut down from within."))
"""`Cause.EXITED` with code 0: File, Shut Down."""

EVIDENCE: Final[Mapping[Cause, str]] = {
    Cause.USER: N_("stopped by its owner"),
    Cause.ADMIN: N_("stopped by an administrator"),
    Cause.IDLE: N_("nobody used it"),
    Cause.MAX_AGE: N_("it had run for as long as it may"),
    Cause.WALLTIME: N_("the time it was given was over"),
    Cause.OUT_OF_MEMORY: N_("killed for lack of memory"),
    Cause.NODE_FAIL: N_("its machine failed"),
    Cause.PREEMPTED: N_("displaced by work with a higher priority"),
    Cause.CANCELLED_OUTSIDE: N_("cancelled with the tools of the computing system"),
    Cause.EXITED: N_("its program ended with exit code %(code)s"),
    Cause.SIGNAL: N_("its program was killed by signal %(code)s"),
    Cause.NEVER_STARTED: N_("it never became ready"),
    Cause.POLICY: N_("ended by a rule of this site"),
    Cause.MAINTENANCE: N_("stopped for maintenance"),
    Cause.UNKNOWN: N_("nothing of it was found any more"),
}
"""What was seen of an end, in a few words."""

# --- events -----------------------------------------------------------------------------------

EVENTS: Final[Mapping[str, Sentence]] = {
    "requested": Sentence(N_("Asked for")),
    "in-line": Sentence(N_("In line: number %(place)s of %(of)s")),
    "submitted": Sentence(N_("Handed to the computing system")),
    "queued": Sentence(N_("In the queue")),
    "held": Sentence(N_("Held by the computing system")),
    "starting": Sentence(N_("Starting")),
    "starting-on": Sentence(N_("Starting on %(node)s")),
    "registered": Sentence(N_("Its job has called from %(host)s")),
    "requeued": Sentence(N_("Back in the queue: its job is run anew")),
    "stage": Sentence(N_("Its software is being loaded")),
    "warning": Sentence(N_("Its job warns")),
    "warning-notice": Sentence(N_("The computing system says that it will soon be ended")),
    "warning-out-of-memory": Sentence(N_("It lacks memory: a program in it was ended")),
    "warning-home-full": Sentence(N_("Your home directory is full")),
    "warning-home-missing": Sentence(N_("Your home directory cannot be used")),
    "warning-volume-full": Sentence(
        N_("Your storage is full: it starts in rescue mode, so that you can make room")
    ),
    "warning-volume-missing": Sentence(
        N_("Your storage cannot be used: it starts in rescue mode, without it")
    ),
    "warning-volume-read-only": Sentence(
        N_("Your storage can only be read: it starts in rescue mode")
    ),
    "listening": Sentence(N_("It listens")),
    "connecting": Sentence(N_("Started; waiting for its first answer")),
    "routed": Sentence(N_("It answers; the way to it is being opened")),
    "ready": Sentence(N_("Ready")),
    "suspended": Sentence(N_("Paused by the computing system")),
    "unknown": Sentence(N_("Out of sight: the computing system does not tell us about it")),
    "seen-again": Sentence(N_("In sight again")),
    "ending": Sentence(N_("Stopping")),
    "ended": Sentence(N_("Stopped")),
    "start-failed": Sentence(N_("A first try to start it failed; we try again")),
    "proxy-away": Sentence(N_("The proxy does not answer")),
    "queue-limit": Sentence(N_("Asked whether to go on waiting")),
    "kept-waiting": Sentence(N_("Goes on waiting")),
    "released": Sentence(N_("Released")),
    "volume-lost": Sentence(
        N_("Your files were not found where they were kept: an empty folder is made at %(path)s")
    ),
    "followed": Sentence(N_("Somebody will be told (%(by)s)")),
    "breaker": Sentence(N_("Held back: too many servers seemed to vanish at once")),
}

# --- errors -----------------------------------------------------------------------------------

_APPLICATION: Final = Sentence(
    N_("A server or application sent a request that is not right."),
    N_("Restart the server. If it lasts, tell your administrator."),
)

ERRORS: Final[Mapping[str, Sentence]] = {
    "internal": Sentence(
        N_("We made a mistake."),
        N_("Nothing of yours is lost. Try again; if it happens twice, send us the id below."),
    ),
    "not-found": Sentence(
        N_("There is nothing at this address, or it is not for you to see."),
        N_("Check the address, or go to your servers."),
    ),
    "conflict": Sentence(
        N_("This cannot be done right now."), N_("Go back, look at the present state, try again.")
    ),
    "forbidden": Sentence(
        N_("You are signed in, but you may not do this."),
        N_("If you think you should, ask your administrator."),
    ),
    "not-waiting": Sentence(
        N_("It does not wait in the queue any more."), N_("Its page shows how it is now.")
    ),
    "not-held": Sentence(N_("You do not hold it any more."), N_("Its page shows how it is now.")),
    "not-released": Sentence(
        N_("The computing system did not release it."),
        N_("Ask your administrator to release it, or cancel it."),
    ),
    "channel-unknown": Sentence(N_("This site cannot notify you in this way.")),
    "signin-needed": Sentence(N_("Sign in first.")),
    "signin-away": Sentence(
        N_("The service that checks passwords does not answer."), N_("Try again in a moment.")
    ),
    "signin-blocked": Sentence(
        N_("This account is blocked."), N_("Ask your administrator about it.")
    ),
    "account-expired": Sentence(
        N_("Your account has expired."), N_("Ask your administrator to prolong it.")
    ),
    "account-locked": Sentence(
        N_("Your account is locked."), N_("Ask your administrator about it.")
    ),
    "password-expired": Sentence(
        N_("Your password has expired."),
        N_("Set a new one where you usually change it, then sign in here."),
    ),
    "account-refused": Sentence(
        N_("Your account may not sign in here."), N_("Ask your administrator about it.")
    ),
    "account-reserved": Sentence(
        N_("Accounts of the system itself may not sign in here."),
        N_("Sign in with your own account."),
    ),
    "account-unfit": Sentence(
        N_("Your account cannot be used here."),
        N_("Ask your administrator: the hub's log says why."),
    ),
    "signin-name-taken": Sentence(
        N_("This user name belongs to another way of signing in."),
        N_("An administrator can link the two."),
    ),
    "signin-subject": Sentence(
        N_("We could not read who you are from the service that checked your password."),
        N_("This is for your administrator to repair."),
    ),
    "signin-busy": Sentence(
        N_("Many people are signing in right now."), N_("Try again in a moment.")
    ),
    "password-too-short": Sentence(N_("A password needs at least %(least)s characters.")),
    "password-too-long": Sentence(N_("This password is too long.")),
    "password-wrong": Sentence(N_("This is not your present password.")),
    "passwords-elsewhere": Sentence(
        N_("Your password is not kept here."), N_("Change it where you got your account.")
    ),
    "session-unknown": Sentence(N_("This sign-in has ended already.")),
    "token-unknown": Sentence(N_("This token does not exist any more.")),
    "scope-not-held": Sentence(N_("A token cannot do more than you may do yourself.")),
    "scope-unknown": Sentence(N_("There is no such right.")),
    "user-unknown": Sentence(
        N_("There is no such person, or it is not for you to see."), N_("Check the address.")
    ),
    "user-name": Sentence(N_("This cannot be a user name: %(name)s")),
    "server-unknown": Sentence(
        N_("There is no server with this name."), N_("Your servers show what there is.")
    ),
    "server-name": Sentence(
        N_(
            "%(name)s cannot be the name of a server: up to %(limit)s lower-case letters and"
            " digits, with single hyphens between them, beginning with a letter."
        )
    ),
    "display-name": Sentence(
        N_(
            "This cannot be a name: 1 to %(limit)s characters that can be seen, with single"
            " spaces between words."
        )
    ),
    "default-server-stays": Sentence(
        N_("The default server cannot be deleted."), N_("You can stop it.")
    ),
    "volume-unknown": Sentence(
        N_("These files are not there, or not for you to see."),
        N_("The page “My data” shows what there is."),
    ),
    "volume-in-use": Sentence(
        N_("A server uses these files at the moment."), N_("Stop it first, then try again.")
    ),
    "volume-server-active": Sentence(
        N_("This server is running or on its way."), N_("Stop it first, then try again.")
    ),
    "volume-gone": Sentence(N_("These files are being removed, and nobody can bring them back.")),
    "name-not-typed": Sentence(N_("This is not the name that was asked for.")),
    "storage-impossible": Sentence(
        N_("This profile keeps files, and its computing system cannot keep any."),
        N_("This is for your administrator to repair."),
    ),
    "profile-none": Sentence(N_("No profile is offered to you."), N_("Ask your administrator.")),
    "profile-unknown": Sentence(
        N_("There is no profile called %(asked)s."), N_("Choose one from the list.")
    ),
    "invalid-options": Sentence(
        N_("Something in the form is not right."), N_("See the marked fields.")
    ),
    "oauth-access": Sentence(
        N_("You may not use this server or application."), N_("Ask the person it belongs to.")
    ),
    "oauth-client": _APPLICATION,
    "oauth-redirect": _APPLICATION,
    "oauth-request": _APPLICATION,
    "form-too-long": Sentence(N_("What was sent is too long.")),
    "body-too-large": Sentence(N_("What was sent is too long.")),
    "form-unreadable": Sentence(N_("The form arrived incomplete."), N_("Send it again.")),
    "method-not-allowed": Sentence(
        N_("This address cannot be used like that."), N_("Go back and try again.")
    ),
    "throttled": Sentence(N_("Too many requests at once."), N_("Wait a moment, then try again.")),
    "invalid": Sentence(N_("Something in the form is not right."), N_("Correct it and try again.")),
    "refused": Sentence(N_("A rule of this site does not allow this.")),
    "configuration": Sentence(
        N_("This site is not set up correctly."), N_("This is for your administrator to repair.")
    ),
    "lease-lost": Sentence(N_("Another part of the hub took over."), N_("Try again.")),
    "spawner": Sentence(
        N_("The computing system reported an error."), N_("Try again in a few minutes.")
    ),
    "spawner-away": Sentence(
        N_("The computing system does not answer at the moment."),
        N_("Try again in a few minutes."),
    ),
    "spawner-rejected": Sentence(
        N_("The computing system refused the request."),
        N_("Choose other options, or ask your administrator."),
    ),
    "upstream-away": Sentence(
        N_("The server does not answer."),
        N_("It may have stopped a moment ago. Your servers show how it is."),
    ),
    "upstream-slow": Sentence(
        N_("The server took too long to answer."),
        N_("It may be very busy. Try again in a moment."),
    ),
    "redirect-loop": Sentence(
        N_("Your browser and the server keep sending each other back and forth."),
        N_("Wait a moment and try again. If it lasts, restart the server."),
    ),
    "xsrf": Sentence(
        N_("This page was open for too long, or cookies are switched off."),
        N_("Go back, reload the page, and try again."),
    ),
    "environment-unknown": Sentence(N_("There is no such environment.")),
    "environment-name": Sentence(
        N_("“%(name)s” cannot be an environment's name."),
        N_("Take 1 to %(limit)s lower-case letters, digits, - and _."),
    ),
    "environment-package": Sentence(
        N_("“%(line)s” is not a package."), N_("Write a name such as numpy, or numpy==2.1.")
    ),
    "environment-packages": Sentence(N_("An environment has at most %(limit)s packages.")),
    "environment-lock": Sentence(N_("This list of exact versions is too long.")),
    "environment-not-exact": Sentence(N_("“%(line)s” is not an exact version.")),
    "environment-exists": Sentence(
        N_("There is an environment of this name already."), N_("Choose another name.")
    ),
    "environment-most": Sentence(
        N_("You have %(limit)s environments there, and more are not possible."),
        N_("Remove one that you no longer need."),
    ),
    "environment-locked": Sentence(
        N_("The environment %(name)s is locked."), N_("Unlock it before you change it.")
    ),
    "environment-not-built": Sentence(
        N_("This environment was not built yet."), N_("Wait until it is ready.")
    ),
    "environment-group": Sentence(
        N_("You are not in %(groups)s."), N_("Share with groups that you are in.")
    ),
    "environment-elsewhere": Sentence(
        N_("%(package)s does not come from the package index."),
        N_("Only names and versions can be shared, no files and no addresses."),
    ),
    "environment-by-hand": Sentence(
        N_("%(name)s was made by hand."), N_("Change or remove it in a session.")
    ),
    "environment-removing": Sentence(N_("%(name)s is being removed.")),
    "environment-place": Sentence(N_("Nothing of yours is kept there.")),
    "environment-nowhere": Sentence(
        N_("There is no place yet where environments could lie."),
        N_("Start a server that keeps its files first."),
    ),
    "not-a-server": Sentence(N_("Only a running server may say this.")),
    "signin": Sentence(N_("Invalid username or password")),
    "signin-expired": Sentence(N_("Login form invalid or expired. Try again.")),
    "signin-throttled": Sentence(
        N_("Too many failed attempts. Wait %(retry_after_seconds)s, then try again.")
    ),
    "link-used": Sentence(
        N_("This sign-in link has been used already or is too old."),
        N_("Sign in with your password, or ask for a new link."),
    ),
}

_WHOSE: Final = N_("The rule is this site's policy “%(policy)s”.")

REFUSALS: Final[Mapping[Rule, Sentence]] = {
    Rule.NAMED_SERVERS: Sentence(
        N_("You may have %(limit)s named servers, and this would be number %(asked)s."),
        N_("Delete one that you no longer need."),
    ),
    Rule.DEFAULT_SERVER: Sentence(
        N_("You may not start a server without a name."), N_("Make a new server with a name.")
    ),
    Rule.SERVER_NAME_LENGTH: Sentence(
        N_("The name has %(asked)s characters; %(limit)s are allowed."), N_("Choose a shorter one.")
    ),
    Rule.SERVER_NAME: Sentence(
        N_("The name %(asked)s does not follow this site's pattern, %(limit)s."),
        N_("Choose another name."),
    ),
    Rule.PROFILE: Sentence(
        N_("You may not start the profile %(asked)s."), N_("Choose another profile.")
    ),
    Rule.CPU: Sentence(N_("You asked for %(asked)s cores; you may have %(limit)s here.")),
    Rule.MEMORY: Sentence(N_("You asked for %(asked)s of memory; you may have %(limit)s here.")),
    Rule.TIME: Sentence(N_("You asked for %(asked)s; you may have %(limit)s here.")),
    Rule.GPU: Sentence(N_("You asked for %(asked)s GPUs; you may have %(limit)s here.")),
    Rule.GPU_TYPE: Sentence(N_("You may not have GPUs of the type %(asked)s here.")),
    Rule.ACCOUNT: Sentence(N_("You may not use the account %(asked)s here.")),
    Rule.PARTITION: Sentence(N_("You may not use the partition %(asked)s here.")),
    Rule.QOS: Sentence(N_("You may not use the quality of service %(asked)s here.")),
    Rule.IMAGE: Sentence(N_("You may not use the image %(asked)s here.")),
    Rule.ENVIRONMENTS: Sentence(
        N_("You may not keep environments here."),
        N_("What you install lasts as long as the session."),
    ),
    Rule.ACTIVE_SERVERS: Sentence(
        N_("You may have %(limit)s servers running at once; this would be number %(asked)s."),
        N_("Stop one of your servers first."),
    ),
    Rule.GROUP_ACTIVE_SERVERS: Sentence(
        N_("Your group may have %(limit)s servers running at once, and it has."),
        N_("Wait until one of them stops, or ask your colleagues."),
    ),
    Rule.TOTAL_ACTIVE_SERVERS: Sentence(
        N_("This site is full: %(limit)s servers are running."),
        N_("Try again in a few minutes."),
    ),
}
"""By rule: what the policy allows and what was asked."""

_UNIT_OF: Final[Mapping[str, str]] = {Rule.MEMORY: "_bytes", Rule.TIME: "_seconds"}
"""How limit and asked of a rule are written, as a name's ending."""


# --- saying them ------------------------------------------------------------------------------


def say(texts: Texts, sentence: Sentence, params: Mapping[str, Any], code: str = "") -> Said:
    """Translate `sentence` and fill in `params`, each written as its name says."""
    written = _Written({name: write(texts, name, value) for name, value in params.items()})
    return Said(
        texts.translations.gettext(sentence.text) % written,
        texts.translations.gettext(sentence.advice) % written if sentence.advice else "",
        code,
    )


class _Written(dict[str, str]):
    """Values as text; one that an older row does not have is a question mark, never an error."""

    def __missing__(self, key: str) -> str:
        return _UNKNOWN


def write(texts: Texts, name: str, value: Any) -> str:
    """Write a value as its name says: ``…_seconds``, ``…_bytes``, ``server``, or as it is."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if name.endswith("_seconds"):
            return texts.duration(value)
        if name.endswith("_bytes"):
            return texts.size(int(value))
        return texts.number(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(str(item) for item in value)
    if name == _SERVER and value == "":
        return texts.gettext("Default server")
    return str(value)


def state_word(texts: Texts, status: Status) -> str:
    """Return the word for a status."""
    return texts.gettext(STATES[status])


def why(texts: Texts, status: Status, reason: Reason | None) -> Said:
    """Say why a launch waits, as precisely as is known."""
    if reason is not None and reason.code in WAITING:
        return say(texts, _waiting(reason), reason.params, reason.code)
    return say(texts, WHY[status], {}, reason.code if reason else "")


def _waiting(reason: Reason) -> Sentence:
    """Return the most precise sentence that can be filled in."""

    def is_told(name: str) -> bool:
        value = reason.params.get(name)
        return bool(value) or (name == _SERVER and value == "")

    for precise in PRECISE.get(reason.code, ()):
        if all(map(is_told, _PLACEHOLDER.findall(precise.text))):
            return precise
    return WAITING[reason.code]


def end(texts: Texts, ended: End, limit_seconds: float | None = None) -> Said:
    """Say why a launch ended; `limit_seconds` is that of the clock that ran out, if one did."""
    sentence = CAUSES[ended.cause]
    params: dict[str, Any] = {"code": ended.code}
    if ended.cause == Cause.EXITED and ended.code == 0:
        sentence = CLEAN_EXIT
    elif ended.cause == Cause.NEVER_STARTED:
        sentence = CANNOT.get(ended.reason) or WAITING.get(ended.reason) or sentence
        if ended.reason.endswith("-clock"):
            params["limit"] = _UNKNOWN if limit_seconds is None else texts.duration(limit_seconds)
    return say(texts, sentence, params, end_code(ended))


def evidence(texts: Texts, ended: End) -> str:
    """Say in a few words what was seen of an end."""
    words = texts.translations.gettext(EVIDENCE[ended.cause])
    return words % _Written({} if ended.code is None else {"code": texts.number(ended.code)})


def end_code(ended: End) -> str:
    """Return the id of an end that people search for and report."""
    return of_end(ended).id or str(ended)


def event(texts: Texts, code: str, params: Mapping[str, Any]) -> str:
    """Say what an event of a launch was; a code of a newer hub is shown as it is."""
    if code == "starting" and params.get("node"):
        code = "starting-on"
    precise = f"{code}-{params.get('reason')}"
    code = precise if precise in EVENTS else code
    sentence = EVENTS.get(code)
    return say(texts, sentence, params).text if sentence else code


def _refusal(texts: Texts, rule: Rule, failure: HubError) -> Said:
    ending = _UNIT_OF.get(rule, "")
    params = dict(failure.params)
    for name in ("limit", "asked"):
        params[name] = write(texts, f"{name}{ending}", params.get(name, _UNKNOWN))
    said = say(texts, REFUSALS[rule], params, failure.code)
    whose = say(texts, Sentence(_WHOSE), params).text if params.get("policy") else ""
    return Said(said.text, " ".join(part for part in (said.advice, whose) if part), said.code)


def error(texts: Texts, failure: HubError) -> Said:
    """Say what an error means; the most precise sentence there is, else its own English."""
    rule = failure.params.get("rule")
    if failure.code.startswith("refused-") and rule in REFUSALS:
        return _refusal(texts, Rule(str(rule)), failure)
    sentence = ERRORS.get(failure.code) or CANNOT.get(failure.code) or WAITING.get(failure.code)
    if sentence is None:
        return Said(str(failure), failure.hint, failure.code)
    return say(texts, sentence, failure.params, failure.code)
