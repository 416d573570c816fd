/*
 * Extension of JupyterLab (3.1 and later) and Notebook 7: when this session ends, its memory, and
 * notices as notifications. Written as the module-federation container that a bundler would
 * make, so that nothing has to be built: the modules it needs are those of the page it is in.
 */
(function () {
  "use strict";

  const NAME = "@perijove/session";
  const POLL = 15000;
  const COMMAND = "apputils:notify";
  const textsUrl = new URL("texts.json", document.currentScript.src);
  let shared = {};

  /** Return the page's own copy of a module; null where it has none. */
  async function moduleOf(name) {
    const copies = Object.values(shared[name] || {});
    const copy = copies.find((each) => each.loaded) || copies[0];
    return copy ? (await copy.get())() : null;
  }

  /** Return the texts of the first language wanted that there is. */
  function choose(texts, wanted) {
    const found = wanted.map((each) => each.slice(0, 2).toLowerCase()).find((each) => texts[each]);
    return { language: found || "en", texts: texts[found || "en"] };
  }

  function fill(text, values) {
    return text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? values[name] : all));
  }

  function duration(seconds, texts) {
    const minutes = Math.floor(seconds / 60);
    if (minutes < 1) return texts.under_a_minute;
    if (minutes < 60) return fill(texts.minutes, { minutes });
    if (minutes < 1440) {
      const rest = String(minutes % 60).padStart(2, "0");
      return fill(texts.hours, { hours: Math.floor(minutes / 60), minutes: rest });
    }
    const hours = Math.floor(minutes / 60);
    return fill(texts.days, { days: Math.floor(hours / 24), hours: hours % 24 });
  }

  function clock(at, language) {
    const isToday = new Date().toDateString() === at.toDateString();
    const form = { hour: "2-digit", minute: "2-digit" };
    return at.toLocaleString(language, isToday ? form : { weekday: "short", ...form });
  }

  function size(bytes, language) {
    const [value, unit] = bytes < 2 ** 30 ? [bytes / 2 ** 20, "MiB"] : [bytes / 2 ** 30, "GiB"];
    const maximumFractionDigits = unit === "GiB" && value < 10 ? 1 : 0;
    return `${value.toLocaleString(language, { maximumFractionDigits })} ${unit}`;
  }

  function memoryOf({ used, limit }, language) {
    return limit ? `${size(used, language)} / ${size(limit, language)}` : size(used, language);
  }

  /** Return the quiet line: "ends 16:40 · 12 min left · 1.2 GiB / 4 GiB". */
  function line(session, { language, texts }) {
    const parts = [];
    if (session.seconds_left !== null) {
      const at = new Date(Date.now() + 1000 * session.seconds_left);
      parts.push(fill(texts.ends, { time: clock(at, language) }));
      parts.push(fill(texts.left, { time: duration(session.seconds_left, texts) }));
    }
    if (session.memory) parts.push(memoryOf(session.memory, language));
    return parts.join(" · ");
  }

  /** Return what was shown in this tab already, and remember what is shown now. */
  function unseen(notices) {
    const key = `${NAME}:seen`;
    const seen = new Set(JSON.parse(window.sessionStorage.getItem(key) || "[]"));
    const fresh = notices.filter((notice) => !seen.has(notice.id));
    fresh.forEach((notice) => seen.add(notice.id));
    window.sessionStorage.setItem(key, JSON.stringify([...seen].slice(-100)));
    return fresh;
  }

  function show(app, notice, texts, place) {
    const message = fill(texts[`notice_${notice.code}`] || notice.code, notice).trim();
    const type = notice.is_urgent ? "error" : "warning";
    if (app.commands.hasCommand(COMMAND)) {
      app.commands.execute(COMMAND, { message, type, options: { autoClose: false } });
    } else if (place) {
      place.title = message;
      place.setAttribute("role", "alert");
      place.dataset.notice = message;
    }
  }

  /** Add the line at the top of the window and return its element; null where that cannot be. */
  async function addPlace(app) {
    const widgets = (await moduleOf("@lumino/widgets")) || (await moduleOf("@phosphor/widgets"));
    if (!widgets) return null;
    const widget = new widgets.Widget();
    widget.id = "perijove-session";
    Object.assign(widget.node.style, {
      marginLeft: "auto",
      padding: "0 12px",
      alignSelf: "center",
      whiteSpace: "nowrap",
      overflow: "hidden",
      textOverflow: "ellipsis",
      color: "var(--jp-ui-font-color1)",
      fontSize: "var(--jp-ui-font-size1)",
    });
    app.shell.add(widget, "top", { rank: 950 });
    return widget.node;
  }

  async function activate(app, translator) {
    const services = await moduleOf("@jupyterlab/services");
    const settings = app.serviceManager.serverSettings;
    const url = `${settings.baseUrl}perijove/session?no_track_activity=1`;
    const texts = await (await fetch(textsUrl, { credentials: "same-origin" })).json();
    // What was chosen in Lab; left at English there, what the browser asks for.
    const lab = (translator && translator.languageCode) || "en";
    const wanted = lab.startsWith("en") ? [...navigator.languages, lab] : [lab];
    const chosen = choose(texts, wanted);
    const place = await addPlace(app);

    async function poll() {
      try {
        const answer = await services.ServerConnection.makeRequest(url, {}, settings);
        if (answer.ok) {
          const session = await answer.json();
          if (place) {
            place.textContent = line(session, chosen);
            place.title = fill(chosen.texts.where, session);
            place.lang = chosen.language;
            place.style.fontWeight =
              session.seconds_left !== null && session.seconds_left < 600 ? "bold" : "";
          }
          unseen(session.notices).forEach((each) => show(app, each, chosen.texts, place));
        }
      } catch (error) {
        console.debug(NAME, error); // The server is away; Lab says so itself.
      }
      window.setTimeout(poll, POLL);
    }
    app.restored.then(poll);
  }

  async function get() {
    const translation = await moduleOf("@jupyterlab/translation");
    const plugin = {
      id: `${NAME}:plugin`,
      description: "Shows when a batch session ends, and warns before it does.",
      autoStart: true,
      optional: translation ? [translation.ITranslator] : [],
      activate: (app, translator) => {
        // A fault here must never keep somebody from their work.
        activate(app, translator).catch((error) => console.warn(NAME, error));
      },
    };
    return () => ({ __esModule: true, default: plugin });
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: (scope) => {
      shared = scope;
    },
    get,
  };
})();
