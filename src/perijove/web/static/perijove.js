/*
 * What pages gain from a script: nothing here is needed to start a server.
 * One file, no library; each part looks for its own marks (data-…) and does nothing without.
 */
(() => {
  "use strict";

  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

  /* --- what scripts of others expect -------------------------------------------------------- */

  const page = JSON.parse($("#jhdata").textContent);
  window.jhdata = page;

  const announce = (text) => {
    const announcer = $("#announcer");
    if (announcer && text) announcer.textContent = text;
  };

  /* --- times in the person's own zone ------------------------------------------------------- */

  const language = document.documentElement.lang || "en";
  const locale = { en: "en-GB", xx: "en-GB" }[language] ?? language;
  const formats = {
    time: new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
    day: new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" }),
    year: new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", year: "numeric" }),
    full: new Intl.DateTimeFormat(locale, { dateStyle: "long", timeStyle: "long", hourCycle: "h23" }),
  };

  const rememberZone = () => {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!zone || document.cookie.includes(`perijove-zone=${zone}`)) return false;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `perijove-zone=${zone}; Path=${page.base_url}; Max-Age=31536000; SameSite=Lax${secure}`;
    return true;
  };

  const localise = (root) => {
    const now = new Date();
    for (const element of $$("time[datetime]", root)) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      element.title = formats.full.format(at);
      if (at.toDateString() === now.toDateString()) element.textContent = formats.time.format(at);
      else {
        const day = at.getFullYear() === now.getFullYear() ? formats.day : formats.year;
        element.textContent = `${day.format(at)}, ${formats.time.format(at)}`;
      }
    }
  };

  /* --- small conveniences ------------------------------------------------------------------- */

  const reveal = (root) => {
    for (const button of $$("[data-reveal]", root)) {
      const input = document.getElementById(button.dataset.reveal);
      button.hidden = false;
      button.addEventListener("click", () => {
        const shown = input.type === "text";
        input.type = shown ? "password" : "text";
        button.setAttribute("aria-pressed", String(!shown));
        input.focus();
      });
      input.form.addEventListener("submit", () => { input.type = "password"; });
    }
  };

  const copy = (root) => {
    if (!navigator.clipboard) return;
    for (const button of $$("[data-copy]", root)) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        const label = $("span", button);
        const before = label.textContent;
        await navigator.clipboard.writeText(button.dataset.copy);
        label.textContent = button.dataset.copied;
        announce(button.dataset.copied);
        setTimeout(() => { label.textContent = before; }, 2000);
      });
    }
  };

  const closeMenus = () => {
    document.addEventListener("click", (event) => {
      for (const menu of $$("details.more[open]")) if (!menu.contains(event.target)) menu.open = false;
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      for (const menu of $$("details.more[open]")) {
        menu.open = false;
        $("summary", menu).focus();
      }
    });
  };

  /* A form sent twice by an impatient hand is one request; coming back makes it usable again. */
  const once = () => {
    document.addEventListener("submit", (event) => {
      if (event.defaultPrevented) return;
      const form = event.target;
      if (form.method !== "post") return;
      const button = event.submitter?.formAction ?? "1";
      if (form.dataset.sent === button) { event.preventDefault(); return; }
      form.dataset.sent = button;
    });
    window.addEventListener("pageshow", () => {
      for (const form of $$("form[data-sent]")) delete form.dataset.sent;
    });
  };

  /* --- the options form --------------------------------------------------------------------- */

  const options = (form) => {
    if (!form) return;
    form.noValidate = false;
    const line = $("#consequence", form);

    const count = ({ dataset }, value) => {
      const words = Number(value) === 1 ? dataset.one : dataset.many;
      return words ? words.replace("#", value) : value;
    };
    const say = (field) => {
      const other = field.value === "--other" && form.elements.namedItem(`${field.name}--other`);
      if (other && (field.checked ?? true)) return other.value;
      if (field.type === "checkbox" || field.type === "radio") return field.checked ? field.dataset.one : "";
      if (field.tagName === "SELECT") return field.value === "0" ? "" : field.selectedOptions[0]?.textContent.trim();
      return count(field, field.value);
    };

    /* What one choice means for others; the server decides the same again. */
    const bind = (fields) => {
      if (!fields?.dataset.rules) return;
      const told = JSON.parse(fields.dataset.rules);
      const of = (name) => $(`[name="${CSS.escape(`${fields.dataset.profile}.${name}`)}"]:not([type=hidden])`, fields);
      const chosen = (name) => of(name)?.value || told.taken[name] || "";
      const then = told.rules
        .filter(({ when }) => Object.entries(when).every(([name, value]) => chosen(name) === value))
        .flatMap((rule) => Object.entries(rule.then));
      const most = (name) => Math.min(...then.filter(([field]) => field === name).map(([, limit]) => limit.maximum ?? Infinity));
      const allows = (name, value) => !value || then.every(([field, limit]) => field !== name || !limit.enum || limit.enum.includes(value));
      for (const input of $$("input[type=number]", fields)) {
        const limit = most(input.dataset.says) / Number(input.dataset.factor);
        input.dataset.most ??= input.max;
        input.max = Math.max(Math.min(Number(input.dataset.most), limit), Number(input.min));
        const hint = document.getElementById(`${input.id}-hint`);
        hint.dataset.usual ??= hint.textContent;
        const said = count(input, Number(input.max).toLocaleString(document.documentElement.lang));
        const narrowed = input.dataset.narrowed.replace("#", said);
        hint.textContent = Number(input.max) < Number(input.dataset.most) ? narrowed : hint.dataset.usual;
        input.setCustomValidity(Number(input.value) > Number(input.max) ? narrowed : "");
      }
      for (const name of ["account", "partition", "qos", "gpu_type"]) {
        for (const option of of(name)?.options ?? []) option.disabled = !option.selected && !allows(name, option.value);
      }
      for (const option of of("gpu")?.options ?? []) {
        const [, type, count] = /^(?:(.*):)?(\d+)$/.exec(option.value) ?? [];
        option.disabled = !option.selected && (Number(count) > most("gpu") || (Number(count) > 0 && !allows("gpu_type", type)));
      }
    };
    let timer = 0;
    const update = (event) => {
      const chosen = $("input[name=profile]:checked", form)?.closest(".profile");
      for (const fields of $$("fieldset.fields", form)) fields.disabled = fields.closest(".profile") !== chosen;
      bind($("fieldset.fields", chosen ?? form));
      if (!line || !chosen) return;
      const title = $("b", chosen).textContent.trim();
      const open = $$("[data-says]", chosen);
      const named = new Set(open.map((field) => field.dataset.says));
      const fixed = $$("[data-of]", chosen).filter((chip) => !named.has(chip.dataset.of));
      const parts = [...fixed.map((chip) => chip.textContent.trim()), ...open.filter((field) => field.value).map(say).filter(Boolean)];
      line.textContent = [title, ...parts].join(" · ");
      if (!event) return;
      clearTimeout(timer); /* said once the hand rests, not at each key */
      timer = setTimeout(() => announce(line.parentElement.textContent), 1000);
    };
    form.addEventListener("input", update);
    form.addEventListener("change", update);
    update();
  };

  /* --- pages that change by themselves ------------------------------------------------------ */

  const live = {
    region: $("#live"),
    html: $("#live")?.innerHTML,
    source: null,
    timer: 0,
    busy: false,
    again: false,
    notify: false,

    start() {
      if (!this.region?.dataset.poll) return;
      document.addEventListener("visibilitychange", () => this.watch());
      this.watch();
    },

    watch() {
      clearTimeout(this.timer);
      const wanted = !document.hidden || this.notify;
      if (this.source && !wanted) { this.source.close(); this.source = null; }
      if (!wanted) return;
      if (this.region.dataset.stream && !this.source) this.listen();
      const seconds = Number(this.region.dataset.poll) * (document.hidden ? 4 : 1);
      this.timer = setTimeout(() => this.refresh(), seconds * 1000);
    },

    listen() {
      const url = new URL(this.region.dataset.stream, location.href);
      url.searchParams.set("_xsrf", page.xsrf_token);
      this.source = new EventSource(url);
      this.source.onmessage = () => this.refresh();
      this.source.onerror = () => { if (this.source?.readyState === EventSource.CLOSED) this.source = null; };
    },

    async refresh() {
      if (this.busy) { this.again = true; return; }
      this.busy = true;
      this.again = false;
      try {
        const response = await fetch(location.href, { redirect: "manual", headers: { Accept: "text/html" } });
        if (response.type === "opaqueredirect") { await this.leave(); return; }
        const read = new DOMParser().parseFromString(await response.text(), "text/html");
        const next = read.getElementById("live");
        if (next) { document.title = read.title; this.replace(next); }
      } catch { /* the hub is away for a moment: the next round tries again */ }
      finally { this.busy = false; }
      if (this.again) this.refresh();
      else if (this.region.dataset.poll) this.watch();
      else this.source?.close();
    },

    /* What tells a thing on the page from all others, before and after it was replaced. */
    nameOf(element) {
      return element.id || [element.tagName, element.href, element.form?.action, element.formAction, element.name, element.value, element.textContent].join();
    },

    /* Replace what changed, and keep open, ticked and focused what the person left so. */
    replace(next) {
      const html = next.innerHTML;
      const before = this.region.dataset.state;
      const level = Number(this.region.dataset.level ?? 0);
      const asked = $("#question", this.region);
      const open = new Set($$("details[open][id]", this.region).map((details) => details.id));
      const ticked = new Map($$("input[type=checkbox]", this.region).map((box) => [this.nameOf(box), box]));
      const active = this.region.contains(document.activeElement) ? this.nameOf(document.activeElement) : "";
      $$("details", next).forEach((details) => { if (open.has(details.id)) details.open = true; });
      for (const box of $$("input[type=checkbox]", next)) {
        const old = ticked.get(this.nameOf(box));
        if (old && old.checked !== old.defaultChecked) box.checked = old.checked;
      }
      for (const field of $$("input[name=_xsrf]", next)) field.value = page.xsrf_token;
      for (const name of ["poll", "stream", "state", "level"]) {
        if (name in next.dataset) this.region.dataset[name] = next.dataset[name];
        else delete this.region.dataset[name];
      }
      if (html === this.html) return;
      this.html = html;
      this.region.replaceChildren(...next.childNodes);
      prepare(this.region);
      if (active) $$("a, button, input, select, summary, pre", this.region).find((each) => this.nameOf(each) === active)?.focus();
      if (before !== this.region.dataset.state) announce($$("h1, .lead", this.region).map((each) => each.textContent).join(". "));
      if (Number(this.region.dataset.level ?? 0) > level) announce($(".warning", this.region)?.textContent.trim());
      const question = $("#question", this.region);
      if (!this.region.dataset.poll) this.tell($("h1", this.region)?.textContent);
      else if (question && !asked) this.tell(question.textContent);
    },

    /* Say it where the person looks, if that is elsewhere. */
    tell(text) {
      if (this.notify && document.hidden) new Notification(document.title, { body: text });
    },

    /* The page leads on: to a server that is ready, or to the sign-in. */
    async leave() {
      clearTimeout(this.timer);
      if (this.notify && document.hidden && await this.isReady()) this.tell(this.ready);
      location.reload();
    },

    async isReady() {
      const url = new URL(this.region.dataset.stream, location.href);
      url.pathname = url.pathname.replace(/\/events$/, "");
      url.searchParams.set("_xsrf", page.xsrf_token);
      const answer = await fetch(url);
      return answer.ok && (await answer.json()).status === "ready";
    },

    offer(button) {
      if (!("Notification" in window)) return;
      const answer = (text) => {
        const told = document.createElement("p");
        told.setAttribute("role", "status");
        told.textContent = text;
        button.replaceWith(told);
      };
      if (this.notify) { answer(button.dataset.granted); return; }
      button.hidden = false;
      button.addEventListener("click", async () => {
        this.notify = (await Notification.requestPermission()) === "granted";
        this.ready = button.dataset.notify;
        answer(this.notify ? button.dataset.granted : button.dataset.denied);
      });
    },
  };

  /* --- begin -------------------------------------------------------------------------------- */

  function prepare(root) {
    localise(root);
    reveal(root);
    copy(root);
    for (const button of $$("[data-notify]", root)) live.offer(button);
  }

  rememberZone();
  prepare(document);
  closeMenus();
  once();
  options($("#spawn_form"));
  live.start();
  window._jupyterhub_page_loaded = true;
})();
