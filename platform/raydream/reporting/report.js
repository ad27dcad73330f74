"use strict";
// Makes a page alive that is whole without it. All text goes through textContent: nothing of a run is read as HTML.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const made = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const dataOf = part => {
    const block = part.querySelector("script.data");
    return block ? JSON.parse(block.textContent) : null;
  };
  const named = (name, within) => all("[data-name]", within).filter(each => each.dataset.name === name);

  // --- what is pointed at ---
  const tip = made("div", { className: "tip", hidden: true });
  const cross = made("div", { className: "cross" });
  document.body.append(tip);
  const tell = (text, event) => {
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = event.clientX + 14 + width > innerWidth ? event.clientX - 14 - width : event.clientX + 14;
    const top = event.clientY + 14 + height > innerHeight ? event.clientY - 14 - height : event.clientY + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  };
  const quiet = () => { tip.hidden = true; cross.remove(); };
  const shown = (value, axis) => {
    if (axis.names.length) return axis.names[value] ?? String(value);
    if (axis.share) return `${+(100 * value).toFixed(2)} %`;
    return Math.abs(value) >= 1e6 || (value && Math.abs(value) < 1e-3)
      ? value.toPrecision(4) : value.toLocaleString("en-US", { maximumSignificantDigits: 6 });
  };
  const place = (value, axis) => ((axis.log ? Math.log10(value) : value) - axis.low) / (axis.high - axis.low);
  const nearest = (plot, panel, event) => {
    const box = plot.getBoundingClientRect();
    const hidden = new Set(all("g.off, g.out", plot).map(each => Number(each.dataset.line)));
    let best = null;
    panel.lines.forEach((line, index) => {
      if (hidden.has(index)) return;
      line.x.forEach((x, at) => {
        if (x === null || line.y[at] === null) return;
        const left = box.width * place(x, panel.x), top = box.height * (1 - place(line.y[at], panel.y));
        const distance = Math.hypot(box.left + left - event.clientX, box.top + top - event.clientY);
        if (!best || distance < best.distance) best = { line, at, left, top, distance };
      });
    });
    return best;
  };
  all("figure.chart").forEach(figure => {
    const data = dataOf(figure);
    all(".plot", figure).forEach(plot => {
      const panel = data.panels[plot.dataset.panel];
      if (!panel.lines.length) return;
      plot.addEventListener("pointermove", event => {
        const found = nearest(plot, panel, event);
        if (!found) return quiet();
        const { line, at } = found;
        const text = [line.name, `${panel.x.label}: ${shown(line.x[at], panel.x)}`,
          `${panel.y.label}: ${shown(line.y[at], panel.y)}`];
        if (line.low) text.push(`all: ${shown(line.low[at], panel.y)} to ${shown(line.high[at], panel.y)}`);
        if (line.notes && line.notes[at]) text.push(line.notes[at]);
        cross.style.left = `${found.left}px`;
        cross.style.top = `${found.top}px`;
        plot.append(cross);
        return tell(text.join("\n"), event);
      });
      plot.addEventListener("pointerleave", quiet);
    });
  });
  all("figure.part").forEach(figure => {
    figure.addEventListener("pointermove", event => {
      if (event.target.dataset?.tip) tell(event.target.dataset.tip, event);
      else if (!event.target.closest(".plot")) quiet();
    });
    figure.addEventListener("pointerleave", quiet);
  });

  // --- legends, and the runs of a comparison ---
  const pressed = (key, act) => {
    Object.assign(key, { tabIndex: 0, role: "button" });
    key.setAttribute("role", "button");
    key.setAttribute("aria-pressed", "true");
    const turn = () => {
      const on = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(on));
      act(on);
    };
    key.addEventListener("click", turn);
    key.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); }
    });
  };
  all("figure.chart .key").forEach(key => pressed(key, on => {
    named(key.dataset.key, key.closest("figure")).forEach(each => each.classList.toggle("off", !on));
  }));
  all(".filters").forEach(bar => {
    bar.hidden = false;
    bar.classList.add("controls", "runs");
    const keys = all(".key", bar), search = made("input", { type: "search", placeholder: "filter runs" });
    search.setAttribute("aria-label", "filter runs");
    const update = () => keys.forEach(key => {
      const there = key.dataset.run.toLowerCase().includes(search.value.toLowerCase());
      key.hidden = !there;
      const out = !there || key.getAttribute("aria-pressed") !== "true";
      named(key.dataset.run, document).forEach(each => each.classList.toggle("out", out));
      all(".legend:not(.filters) .key").filter(each => each.dataset.key === key.dataset.run)
        .forEach(each => each.classList.toggle("out", out));
    });
    keys.forEach(key => pressed(key, update));
    search.addEventListener("input", update);
    bar.prepend(search);
  });

  // --- downloads ---
  const save = (name, text, type) => {
    const link = made("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const cell = value => {
    const text = value === null || value === undefined ? "" : String(value);
    // A spreadsheet would compute what begins like a formula.
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = rows => rows.map(row => row.map(cell).join(",")).join("\r\n") + "\r\n";
  const text = each => each.textContent.trim();
  const rowsOf = table => all("tr", table).filter(row => !row.matches(".out, .off"))
    .map(row => [...row.cells].map(text));
  const chartRows = data => [["panel", "name", "x", "y", "low", "high"], ...data.panels.flatMap(panel => [
    ...panel.lines.flatMap(line => line.x.map((x, at) => [panel.title, line.name, panel.x.names[x] ?? x, line.y[at],
      line.low?.[at], line.high?.[at]])),
    ...(panel.cells ?? []).map(each => [panel.title, each.text, each.column, each.row, null, null]),
  ])];
  const galleryRows = data => [["class", "round", "on target", "teacher", "probability", "student", "probability"],
    ...data.map(each => [each.class, each.round, each.on_target, ...(each.teacher[0] ?? ["", ""]),
      ...(each.student[0] ?? ["", ""])])];
  const fileName = (what, kind) => {
    const plain = `${document.title} ${what}`.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").toLowerCase();
    return `${plain.slice(0, 80)}.${kind}`;
  };
  const heading = element => text(element.closest("section").querySelector("h2"));
  const tool = (after, rows) => {
    const button = made("button", { type: "button", className: "tool", textContent: "CSV" });
    button.title = "download these figures as CSV";
    button.addEventListener("click", () => save(fileName(heading(after), "csv"), csv(rows()), "text/csv"));
    after.append(made("div", { className: "tools" }, button));
  };
  all("figure.chart").forEach(figure => tool(figure, () => chartRows(dataOf(figure))));
  all("figure.gallery").forEach(figure => tool(figure, () => galleryRows(dataOf(figure))));
  const whole = () => ({
    title: text(document.querySelector("h1")),
    figures: Object.fromEntries(all(".pair table:not(.rows) tr").map(row => [...row.cells].map(text)).map(
      ([name, ...values]) => [name, values.length > 1 ? values : values[0]])),
    sections: all("section").filter(each => each.querySelector("h2")).map(section => ({
      title: text(section.querySelector("h2")),
      tables: all("table.rows", section).map(rowsOf),
      charts: all("figure.chart, figure.gallery", section).map(dataOf),
    })).filter(each => each.tables.length + each.charts.length),
  });
  const json = made("button", { type: "button", className: "tool", textContent: "all figures as JSON" });
  json.addEventListener("click", () => save(fileName("", "json"), JSON.stringify(whole(), null, 1), "application/json"));
  document.querySelector("main").append(made("div", { className: "tools" }, json));

  // --- tables ---
  const value = (row, column) => {
    const shown = row.cells[column] ? text(row.cells[column]) : "";
    const number = parseFloat(shown.replaceAll(",", "").replace("−", "-"));
    return /^[+\-−]?[\d.,]/.test(shown) && !Number.isNaN(number) ? number : shown;
  };
  const order = (one, other) => {
    if (one === "" || other === "" || one === "–" || other === "–") return 0;
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), "en", { numeric: true });
  };
  const empty = each => each === "" || each === "–";
  all("table.rows").forEach(table => {
    const body = table.tBodies[0], head = table.tHead.rows[0];
    [...head.cells].forEach((cell, column) => {
      const button = made("button", { type: "button", textContent: text(cell) || "name", title: "sort" });
      button.addEventListener("click", () => {
        // Numbers are wanted from the largest first.
        const numbers = [...body.rows].some(row => typeof value(row, column) === "number");
        const before = cell.getAttribute("aria-sort");
        const up = before ? before === "descending" : !numbers;
        [...head.cells].forEach(each => each.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        const keyed = [...body.rows].map(row => [value(row, column), row]);
        keyed.sort(([one], [other]) => empty(one) - empty(other) || (up ? 1 : -1) * order(one, other));
        body.append(...keyed.map(([, row]) => row));
      });
      cell.replaceChildren(button);
    });
    const place = table.closest(".scroll");
    const tools = made("div", { className: "tools" });
    const button = made("button", { type: "button", className: "tool", textContent: "CSV" });
    button.addEventListener("click", () => save(fileName(heading(table), "csv"), csv(rowsOf(table)), "text/csv"));
    tools.append(button);
    place.after(tools);
    if (body.rows.length > 8) {
      const search = made("input", { type: "search", placeholder: "filter rows" });
      search.setAttribute("aria-label", "filter rows");
      search.addEventListener("input", () => [...body.rows].forEach(row => {
        row.classList.toggle("off", !row.textContent.toLowerCase().includes(search.value.toLowerCase()));
      }));
      place.before(made("div", { className: "controls" }, search));
    }
  });

  // --- the gallery ---
  const dialog = made("dialog");
  document.body.append(dialog);
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  const answers = (who, named) => named.length ? [made("table", {}, made("caption", { textContent: who }),
    made("tbody", {}, ...named.map(([label, share]) => made("tr", {}, made("td", { textContent: label }),
      made("td", {}, made("meter", { min: 0, max: 1, value: share })),
      made("td", { className: "number", textContent: `${(100 * share).toFixed(1)} %` })))))] : [];
  const open = (image, source, alt, pixels) => {
    const what = image.round === null ? `class ${image.class}, a real image` : `class ${image.class}, round ${image.round}`;
    const close = made("button", { type: "button", className: "tool", textContent: "close" });
    close.addEventListener("click", () => dialog.close());
    dialog.replaceChildren(
      made("div", { className: "title" }, made("strong", { textContent: what }), close),
      made("img", { className: pixels ? "big image pixels" : "big image", src: source, alt }),
      made("div", { className: "pair" }, ...answers("teacher's probabilities", image.teacher),
        ...answers("student's probabilities", image.student)),
    );
    dialog.showModal();
  };
  const choice = (label, options) => {
    const select = made("select", { ariaLabel: label }, ...options.map(([value, textContent]) => made("option", { value, textContent })));
    return [made("label", {}, label, select), select];
  };
  all("figure.gallery").forEach(figure => {
    const data = dataOf(figure);
    const frames = all(".one", figure).map(frame => {
      const button = made("button", { type: "button", className: frame.className, title: frame.title },
        ...frame.childNodes);
      button.dataset.image = frame.dataset.image;
      frame.replaceWith(button);
      const picture = button.querySelector("img");
      button.addEventListener("click", () =>
        open(data[button.dataset.image], picture.src, picture.alt, picture.classList.contains("pixels")));
      return button;
    });
    const plain = values => [...new Set(values)].map(value => [String(value), String(value)]);
    const [byClass, classes] = choice("class", [["", "all"], ...plain(data.map(each => each.class))]);
    const rounds = data.map(each => each.round).filter(round => round !== null).sort((one, other) => one - other);
    const [byRound, round] = choice("round", [["", "all"], ...plain(rounds)]);
    const [byKind, kind] = choice("show", [["", "all"], ["hit", "on target"], ["missed", "off target"],
      ...(data.some(each => each.round === null) ? [["made", "synthetic"], ["real", "real"]] : [])]);
    const count = made("span", { className: "soft" });
    const kinds = {
      "": () => true, hit: each => each.on_target === true, missed: each => each.on_target === false,
      made: each => each.round !== null, real: each => each.round === null,
    };
    const update = () => {
      let left = 0;
      frames.forEach(frame => {
        const image = data[frame.dataset.image];
        // Real images stay beside those of a round.
        const there = (!classes.value || String(image.class) === classes.value) && kinds[kind.value](image)
          && (!round.value || image.round === null || String(image.round) === round.value);
        frame.classList.toggle("off", !there);
        left += there;
      });
      all(".class", figure).forEach(each => each.classList.toggle("off", !each.querySelector(".one:not(.off)")));
      count.textContent = `${left} of ${data.length} images`;
    };
    [classes, round, kind].forEach(select => select.addEventListener("change", update));
    figure.prepend(made("div", { className: "controls" }, byClass, byRound, byKind, count));
    update();
  });
})();
