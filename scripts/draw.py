#!/usr/bin/env python3
"""Draws dashboards from what a Prometheus said: no Grafana is needed, and none is had.

  draw.py ANSWERS.json DASHBOARD.json... OUT

ANSWERS.json is what the test `observed` writes (scripts/draw-dashboards.sh has it do so). OUT gets a PNG for each
dashboard: its panels where Grafana would put them, each drawn as plainly as its kind allows.
"""

import json
import math
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import PowerNorm  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator  # noqa: E402
from PIL import Image  # noqa: E402

COLUMN, LINE, GAP, HEAD = 52, 30, 6, 58
DPI = 100
PAGE, PANEL, EDGE, TEXT, FAINT = "#f4f5f5", "#ffffff", "#d8d9da", "#24292e", "#6e7680"
# Grafana's own names of colours, in its light theme.
NAMED = {
    "green": "#56a64b", "red": "#e02f44", "orange": "#ff780a", "yellow": "#e0b400", "blue": "#3274d9",
    "purple": "#a352cc",
}
CLASSIC = ["#7eb26d", "#eab839", "#1f78c1", "#ef843c", "#e24d42", "#6ed0e0", "#ba43a9", "#705da0", "#508642",
           "#cca300", "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477"]
MOST_BYTES = 200_000
# Seconds without an annotation after which it is another one.
MOST_GAP = 5


def number(value):
    value = float(value)
    return math.nan if math.isinf(value) else value


def scaled(value, steps, base):
    for power, name in reversed(list(enumerate(steps))):
        if abs(value) >= base**power or power == 0:
            return plain(value / base**power) + name
    return plain(value)


def plain(value):
    if value == 0:
        return "0"
    if abs(value) >= 100 or abs(value - round(value)) < 1e-9 * abs(value):
        return f"{value:.0f}"
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:.1f}"


def seconds(value):
    size = abs(value)
    for limit, unit, factor in ((1e-3, "µs", 1e6), (1, "ms", 1e3), (60, "s", 1), (3600, "min", 1 / 60)):
        if size < limit:
            return f"{plain(value * factor)} {unit}" if size else "0 s"
    return f"{plain(value / 3600)} h"


def formatted(value, unit):
    if value is None or math.isnan(value):
        return ""
    if unit == "s":
        return seconds(value)
    if unit in ("bytes", "Bps"):
        return scaled(value, [" B", " KiB", " MiB", " GiB", " TiB"], 1024) + ("/s" if unit == "Bps" else "")
    if unit == "percentunit":
        return f"{plain(value * 100)} %"
    if unit in ("ops", "reqps"):
        return f"{plain(value)} /s"
    if unit == "bool_yes_no":
        return "yes" if value else "no"
    return scaled(value, ["", " K", " M", " G"], 1000)


def legend_of(pattern, labels):
    if not pattern:
        return ", ".join(f"{k}={v}" for k, v in sorted(labels.items()) if k != "__name__")
    for name, value in labels.items():
        pattern = pattern.replace("{{%s}}" % name, value)
    while "{{" in pattern:
        before, _, rest = pattern.partition("{{")
        pattern = before + rest.partition("}}")[2]
    return " ".join(pattern.split())


class Panel:
    """One panel in its place; places are pixels from the page's top left corner."""

    def __init__(self, figure, panel, results, time):
        self.figure, self.panel, self.results, self.time = figure, panel, results, time
        self.width, self.height = (round(size * DPI) for size in figure.get_size_inches())
        place = panel["gridPos"]
        self.x = place["x"] * COLUMN + GAP
        self.y = place["y"] * LINE + HEAD
        self.w = place["w"] * COLUMN - GAP
        self.h = place["h"] * LINE - GAP
        self.unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")

    def axes(self, x, y, w, h):
        """Of a part of the panel."""
        left, bottom = (self.x + x) / self.width, 1 - (self.y + y + h) / self.height
        return self.figure.add_axes([left, bottom, w / self.width, h / self.height])

    def text(self, x, y, text, **more):
        more = {"fontsize": 7, "color": TEXT, "va": "top", **more}
        self.figure.text((self.x + x) / self.width, 1 - (self.y + y) / self.height, text, **more)

    def draw(self):
        if self.panel["type"] == "row":
            self.text(2, 7, self.panel["title"], fontsize=9.5, fontweight="bold")
            return
        box = self.axes(0, 0, self.w, self.h)
        box.set(xticks=[], yticks=[], facecolor=PANEL)
        for spine in box.spines.values():
            spine.set_color(EDGE)
        self.text(8, 7, self.panel["title"], fontsize=8, fontweight="bold")
        getattr(self, self.panel["type"])()

    def nothing(self):
        self.text(self.w / 2, self.h / 2, "no data", color=FAINT, ha="center", va="center", fontsize=8)

    def series(self):
        """Of all queries: names, and values at each time."""
        for target, result in self.results:
            for one in result:
                name = legend_of(target.get("legendFormat", ""), one["metric"])
                points = one.get("values") or [one["value"]]
                yield name, {float(t): number(v) for t, v in points if v != "NaN"}

    def color_at(self, value):
        steps = self.panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        colors = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
        return NAMED.get(colors[-1] if colors else "green", TEXT)

    def painted(self):
        named = {}
        for override in self.panel["fieldConfig"]["overrides"]:
            for prop in override["properties"]:
                if prop["id"] == "color":
                    named[override["matcher"]["options"]] = NAMED[prop["value"]["fixedColor"]]
        return named

    def stat(self):
        values = [values for _, values in self.series()]
        values = [list(of.values())[-1] for of in values]
        if not values or math.isnan(values[0]):
            return self.nothing()
        shown = formatted(values[0], self.unit)
        self.text(self.w / 2, self.h / 2 + 10, shown, fontsize=19, ha="center", va="center",
                  color=self.color_at(values[0]), fontweight="bold")

    def bargauge(self):
        bars = sorted(((list(v.values())[-1], n) for n, v in self.series()), reverse=True)
        if not bars:
            return self.nothing()
        most = self.panel["fieldConfig"]["defaults"].get("max") or max(value for value, _ in bars) or 1
        high = min(34, (self.h - 40) / len(bars))
        for n, (value, name) in enumerate(bars):
            top = 34 + n * high
            self.text(10, top + high / 2, name, va="center")
            bar = self.axes(self.w * 0.36, top + high * 0.15, self.w * 0.5, high * 0.7)
            bar.set(xlim=(0, most), ylim=(0, 1), xticks=[], yticks=[], facecolor="#eceef0")
            bar.barh(0.5, value, 1, color=self.color_at(value))
            for spine in bar.spines.values():
                spine.set_visible(False)
            self.text(self.w * 0.88, top + high / 2, formatted(value, self.unit), va="center",
                      color=self.color_at(value), fontsize=8)

    def table(self):
        _, result = self.results[0]
        if not result:
            return self.nothing()
        rename = self.panel["transformations"][1]["options"]["indexByName"]
        columns = sorted(rename, key=rename.get)
        rows = [[one["metric"].get(c, "") for c in columns[:-1]] + [formatted(number(one["value"][1]), self.unit)]
                for one in result]
        widths = [max(len(str(cell)) for cell in column) + 3 for column in zip(columns, *rows)]
        scale = (self.w - 20) / sum(widths)
        for n, row in enumerate([columns] + sorted(rows)):
            top = 32 + n * 19
            if top > self.h - 16:
                break
            left = 10
            for cell, width in zip(row, widths):
                self.text(left, top, cell, color=FAINT if n == 0 else TEXT, fontweight="bold" if n == 0 else "normal")
                left += width * scale

    def clock(self, axes):
        first, last = self.time
        axes.set_xlim(0, last - first)
        every = next((t for t in (10, 15, 30, 60, 120) if (last - first) / t <= 7), 300)
        axes.xaxis.set_major_locator(MultipleLocator(every))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{int(t) // 60}:{int(t) % 60:02}"))
        axes.tick_params(labelsize=6.5, colors=FAINT, length=0)
        axes.grid(color="#e6e8ea", linewidth=0.6)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_facecolor(PANEL)

    def timeseries(self):
        all_series = sorted(self.series(), key=lambda one: one[0])
        if not all_series:
            return self.nothing()
        times = sorted({t for _, values in all_series for t in values})
        step = min((b - a for a, b in zip(times, times[1:])), default=1)
        first, last = self.time
        grid = [first + n * step for n in range(int((last - first) / step) + 1)]
        painted, palette = self.painted(), 0
        at_side = self.panel["options"]["legend"]["placement"] == "right"
        lines = []
        for name, values in all_series:
            values = {round((t - first) / step): v for t, v in values.items()}
            points = [values.get(n, math.nan) for n in range(len(grid))]
            color = painted.get(name)
            if color is None:
                color, palette = CLASSIC[palette % len(CLASSIC)], palette + 1
            lines.append((name, points, color))
        side = min(310, max(160, 30 + 5 * max(len(name) for name, _, _ in lines) + 112)) if at_side else 0
        below = 0 if at_side else self.below([name for name, _, _ in lines])
        axes = self.axes(58, 30, self.w - 70 - side, self.h - 54 - below)
        x = [t - first for t in grid]
        is_stacked = self.panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal"
        base = [0.0] * len(grid)
        for name, points, color in lines:
            if is_stacked:
                top = [b + (0 if math.isnan(p) else p) for b, p in zip(base, points)]
                axes.fill_between(x, base, top, color=color, alpha=0.45, linewidth=0)
                axes.plot(x, top, color=color, linewidth=0.9)
                base = top
            else:
                axes.plot(x, points, color=color, linewidth=1.2)
                lonely = [p if self.is_alone(points, n) else math.nan for n, p in enumerate(points)]
                axes.plot(x, lonely, ".", color=color, markersize=3)
        self.clock(axes)
        self.marks(axes)
        drawn = [p for _, points, _ in lines for p in points if not math.isnan(p)] + base
        self.scale(axes, drawn)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: formatted(v, self.unit)))
        if at_side:
            self.side(lines, side)
        else:
            self.under(lines, below)

    def scale(self, axes, drawn):
        """Of the values: from zero, or by powers of ten; ticks are round numbers of the unit that is shown."""
        defaults = self.panel["fieldConfig"]["defaults"]
        if defaults["custom"].get("scaleDistribution", {}).get("type") == "log":
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(10, numticks=7))
            axes.yaxis.set_minor_locator(NullLocator())
            return
        most = max(drawn, default=0)
        axes.set_ylim(0, defaults["max"] * 1.03 if "max" in defaults else most * 1.08 or 1)
        if self.unit == "bool_yes_no":
            axes.set_yticks([0, 1])
            return
        base = 1
        if self.unit in ("bytes", "Bps"):
            while most >= base * 1024:
                base *= 1024
        elif self.unit == "s" and most >= 60:
            base = 3600 if most >= 3600 else 60
        ticks = MaxNLocator(5, integer=self.unit == "none").tick_values(0, (most or 1) / base)
        axes.yaxis.set_major_locator(FixedLocator([tick * base for tick in ticks if tick >= 0]))

    @staticmethod
    def is_alone(points, n):
        near = [points[m] for m in (n - 1, n + 1) if 0 <= m < len(points)]
        return all(math.isnan(p) for p in near)

    def side(self, lines, side):
        left = self.w - side
        for title, x in (("last", side - 56), ("max", side - 8)):
            self.text(left + x, 26, title, color=FAINT, ha="right", fontsize=6.5)
        room = int((self.h - 48) / 14)
        for n, (name, points, color) in enumerate(lines):
            top = 40 + n * 14
            if n + 1 == room and len(lines) > room:
                self.text(left + 14, top, f"and {len(lines) - n} more", color=FAINT, fontsize=6.5)
                break
            known = [p for p in points if not math.isnan(p)]
            fits = int((side - 128) / 5)
            short = name if len(name) <= fits else name[: fits - 1] + "…"
            self.text(left + 2, top, "■", color=color, fontsize=6.5)
            self.text(left + 14, top, short, fontsize=6.5)
            if known:
                self.text(left + side - 56, top, formatted(known[-1], self.unit), ha="right", fontsize=6.5)
                self.text(left + side - 8, top, formatted(max(known), self.unit), ha="right", fontsize=6.5)

    def flow(self, names):
        """Where each name is in the lines below, and how many lines there are."""
        x, line, places = 0, 0, []
        for name in names:
            wide = 24 + 6 * len(name)
            if x and x + wide > self.w - 20:
                x, line = 0, line + 1
            places.append((x, line))
            x += wide
        return places, line + 1

    def below(self, names):
        return 6 + 13 * min(4, self.flow(names)[1])

    def under(self, lines, below):
        places, _ = self.flow([name for name, _, _ in lines])
        for n, ((name, _, color), (x, line)) in enumerate(zip(lines, places)):
            top = self.h - below + line * 13
            if line == 3 and any(line > 3 for _, line in places):
                self.text(10, top, f"and {len(lines) - n} more", color=FAINT, fontsize=6.5)
                break
            self.text(10 + x, top, "■", color=color, fontsize=6.5)
            self.text(21 + x, top, name, fontsize=6.5)

    def marks(self, axes):
        for color, at in self.annotated:
            axes.axvline(at - self.time[0], color=color, linewidth=0.7, linestyle=(0, (3, 3)), alpha=0.7)

    def heatmap(self):
        buckets = {}
        for _, result in self.results:
            for one in result:
                buckets[float(one["metric"]["le"])] = {float(t): number(v) for t, v in one["values"]}
        edges = sorted(buckets)
        times = sorted({t for values in buckets.values() for t in values})
        if not times:
            return self.nothing()
        step = min((b - a for a, b in zip(times, times[1:])), default=1)
        rows = []
        for n, edge in enumerate(edges):
            under = buckets[edges[n - 1]] if n else {}
            rows.append([max(0, buckets[edge].get(t, 0) - under.get(t, 0)) for t in times])
        full = [n for n, row in enumerate(rows) if max(row) > 1e-9]
        if not full:
            return self.nothing()
        low, high = max(0, full[0] - 1), min(len(edges), full[-1] + 2)
        axes = self.axes(58, 30, self.w - 70, self.h - 54)
        shown = [[v if v > 1e-9 else math.nan for v in row] for row in rows[low:high]]
        x = [t - self.time[0] - step / 2 for t in times] + [times[-1] - self.time[0] + step / 2]
        y = list(range(high - low + 1))
        colors = plt.get_cmap("Oranges")
        most = max(v for row in rows for v in row)
        axes.pcolormesh(x, y, shown, cmap=colors, norm=PowerNorm(0.5, vmin=-0.25 * most, vmax=most))
        self.clock(axes)
        self.marks(axes)
        every = max(1, math.ceil((high - low) / 9))
        ticks = list(range(0, high - low, every))
        axes.set_yticks([n + 1 for n in ticks])
        axes.set_yticklabels(["∞" if math.isinf(edges[low + n]) else seconds(edges[low + n]) for n in ticks])


def drawn(board, name, answers):
    found = {(a["panel"], a["letter"]): a["result"] for a in answers["answers"] if a["board"] == name}
    time = (answers["from"], answers["to"])
    lines = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    width, height = 24 * COLUMN + GAP, lines * LINE + HEAD + GAP
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
    figure.text(12 / width, 1 - 12 / height, board["title"], fontsize=13, va="top", color=TEXT, fontweight="bold")
    figure.text(12 / width, 1 - 36 / height, "Drawn by scripts/draw-dashboards.sh from the answers of a real "
                f"Prometheus; {(time[1] - time[0]) / 60:.0f} minutes of a cache and two nodes under load, times in "
                "minutes. Dashed: alerts (red), starts of drivers (blue).", fontsize=7.5, va="top", color=FAINT)
    Panel.annotated = []
    for annotation in board["annotations"]["list"]:
        for one in found.get(("annotations", annotation["name"]), []):
            times = [float(t) for t, _ in one["values"]]
            begins = [t for n, t in enumerate(times) if n == 0 or t - times[n - 1] > MOST_GAP]
            Panel.annotated += [(NAMED[annotation["iconColor"]], t) for t in begins]
    for panel in board["panels"]:
        targets = panel.get("targets", [])
        results = [(target, found.get((panel["title"], target["refId"]), [])) for target in targets]
        Panel(figure, panel, results, time).draw()
    return figure


def save(figure, path):
    """With as many colours as fit."""
    figure.savefig(path, facecolor=PAGE)
    plt.close(figure)
    whole = Image.open(path).convert("RGB")
    for colors in (256, 192, 128, 96, 64, 32):
        few = whole.quantize(colors, Image.Quantize.MAXCOVERAGE, 2, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        if os.path.getsize(path) <= MOST_BYTES:
            return
    raise SystemExit(f"{path} is larger than {MOST_BYTES} bytes")


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    plt.rcParams["font.family"] = "DejaVu Sans"
    with open(sys.argv[1], encoding="utf-8") as file:
        answers = json.load(file)
    for path in sys.argv[2:-1]:
        with open(path, encoding="utf-8") as file:
            board = json.load(file)
        name = os.path.basename(path).removesuffix(".json")
        out = os.path.join(sys.argv[-1], f"{name}.png")
        save(drawn(board, name, answers), out)
        print(out)


main()
