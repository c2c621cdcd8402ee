"use strict";
/* What a browser adds to the page: a button that copies each command, and all test rows with a filter and a search.
   Text of rows only ever becomes text nodes. Without this script the page lacks these two things and nothing else. */
(() => {
  const PAGE = 10;  // rows drawn at once, so that a thousand long rows stay quick

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const copy = async (block) => {
    try {
      await navigator.clipboard.writeText(block.textContent);
    } catch {  // no clipboard here: select the text, so that the keyboard can copy it
      getSelection().selectAllChildren(block);
      return "Selected";
    }
    return "Copied";
  };

  const addCopyButton = (block) => {
    const button = make("button", { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      button.textContent = await copy(block);
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    const frame = make("div", { className: "command" });
    block.replaceWith(frame);
    frame.append(block, button);
  };

  const shorten = (whole, most) => whole.slice(0, most).replace(/[\ud800-\udbff]$/, "").trimEnd() + " …";

  const text = (whole, most) => {
    if (whole.length <= most) return make("span", { className: "text", dir: "auto" }, whole);
    const summary = make("summary", { className: "text", dir: "auto" }, shorten(whole, most));
    return make("details", {}, summary, make("div", { className: "text", dir: "auto" }, whole));
  };

  const line = (name, className, ...shown) =>
    make("div", {}, make("dt", { className }, ...name), make("dd", {}, ...shown));

  const piece = ([kind, words, told]) => {  // marked by an element of that name, or marked and told what it is
    if (told) return make("mark", { className: kind }, words, " ", make("small", {}, told));
    return kind === "same" ? words : make(kind, {}, words);
  };

  const marked = (pieces) => make("span", { className: "text", dir: "auto" }, ...pieces.map(piece));

  const card = (row, data) => {
    const list = make("dl", { className: "answers" }, line(["input"], "", text(data.texts[row.input], data.most)));
    if (row.reference !== null) list.append(line([data.right], "", text(data.texts[row.reference], data.most)));
    data.systems.forEach((system, at) => {
      const [answer, mark, tone] = row.answers[at];
      const said = make("span", { className: `mark ${tone}` }, mark);
      list.append(line([system.name], system.tuned ? "tuned" : "", text(data.texts[answer], data.most), " ", said));
      if (system.tuned && row.difference) list.append(line(data.signs.map(piece), "", marked(row.difference)));
    });
    const head = make("h3", {}, make("span", {}, row.kind), " ", make("span", {}, row.id));
    return make("article", { className: "row" }, head, list);
  };

  const searcher = (data) => {
    const lower = data.texts.map((whole) => whole.toLowerCase());
    return (asked) => {
      const wanted = asked.toLowerCase();
      const holds = lower.map((whole) => whole.includes(wanted));
      return (row) => holds[row.input] || holds[row.reference] || row.answers.some(([answer]) => holds[answer]);
    };
  };

  const explore = (section, data) => {
    const [form, count, list, pager] = ["form", "output", ".list", ".pager"].map((name) => section.querySelector(name));
    const [before, where, after] = pager.children;
    const search = searcher(data);
    let found = data.rows, page = 0;

    const draw = () => {
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      const shown = found.slice(page * PAGE, (page + 1) * PAGE);
      list.replaceChildren(...shown.map((row) => card(row, data)));
      const first = (page * PAGE + 1).toLocaleString("en"), last = (page * PAGE + shown.length).toLocaleString("en");
      const span = pages > 1 ? `; ${first} to ${last} are shown` : "";
      count.textContent = `${found.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} rows${span}`;
      where.textContent = `page ${page + 1} of ${pages}`;
      pager.hidden = pages === 1;
      before.disabled = page === 0;
      after.disabled = page === pages - 1;
    };
    const kinds = {
      changed: data.changed.map((at) => data.rows[at]),
      all: data.rows,
      wrong: data.rows.filter((row) => row.wrong),
    };
    const choose = () => {
      const { kind, asked } = Object.fromEntries(new FormData(form));
      found = (kinds[kind] ?? data.rows.filter((row) => row.kind === kind)).filter(search(asked));
      page = 0;
      draw();
    };
    const turn = (by) => {
      page += by;
      draw();
      form.scrollIntoView();
    };

    form.elements.asked.addEventListener("input", () => {  // a search is in all rows, unless another kind is chosen
      if (form.elements.kind.value === "changed") form.elements.kind.value = "all";
    });
    form.addEventListener("input", choose);
    form.addEventListener("submit", (event) => event.preventDefault());
    before.addEventListener("click", () => turn(-1));
    after.addEventListener("click", () => turn(1));
    section.hidden = false;
    choose();
  };

  document.querySelectorAll("pre").forEach(addCopyButton);
  const explorer = document.getElementById("explorer");
  if (explorer) {
    explore(explorer, JSON.parse(document.getElementById("rows-data").textContent));
    document.getElementById("changed").className = "paper";
  }
})();
