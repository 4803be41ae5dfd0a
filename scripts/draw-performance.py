#!/usr/bin/env python3
"""Draws what `make bench` has measured.

  draw-performance.py BENCH.json OUT

OUT gets a PNG for each chart. Every bar and point is a p50 of the file, with p90 as its whisker.
"""

import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

OURS = "nix-csi"
TEXT, FAINT, EDGE = "#24292e", "#6e7680", "#d8d9da"
BLUE, LIGHT, ORANGE, RED, GREY, GREEN = "#3274d9", "#8ab8ff", "#ff780a", "#e02f44", "#9fa7b3", "#56a64b"
BROWN = "#8f6b4a"
CLOSURES = [
    ("small", "5 paths"), ("medium", "60 paths\n5,000 files"), ("large", "300 paths\n60,000 files"),
    ("sparse", "300 paths\n300 files"), ("crowded", "2,443 paths\n375,000 files"),
]
NODES = [50, 500, 5000]
PATHS = {"small": 5, "medium": 60, "sparse": 300, "crowded": 2443}


class Run:
    def __init__(self, file):
        with open(file, encoding="utf-8") as opened:
            self.lines = {(m["name"], m["alternative"], m["closure"]): m for m in json.load(opened)}

    def ms(self, name, alternative, closure):
        found = self.lines.get((name, alternative, closure))
        return found and (found["p50"] * 1e3, found["p90"] * 1e3)

    def by_nodes(self, name, each):
        """Its p50 in each cluster, in a unit of which the run's own is so many."""
        return [(nodes, self.lines[name, OURS, f"{nodes:,} nodes"]["p50"] * each) for nodes in NODES]


def axes(title, unit):
    figure, at = plt.subplots(figsize=(9, 4.2), dpi=110)
    at.set_title(title, loc="left", color=TEXT, fontsize=11)
    at.set_ylabel(unit, color=FAINT)
    at.tick_params(colors=FAINT, labelsize=8)
    at.grid(axis="y", color=EDGE, linewidth=0.6)
    at.set_axisbelow(True)
    for name, spine in at.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(EDGE)
    return figure, at


def save(figure, at, out, name):
    at.legend(frameon=False, fontsize=8, labelcolor=TEXT, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.tight_layout()
    figure.savefig(os.path.join(out, name + ".png"), metadata={"Software": None})
    plt.close(figure)


def bars(run, out, name, title, series):
    figure, at = axes(title, "ms, logarithmic")
    width = 0.86 / len(series)
    for number, (label, colour, of, alternative) in enumerate(series):
        found = [(place, run.ms(of, alternative, closure)) for place, (closure, _) in enumerate(CLOSURES)]
        found = [(place, value) for place, value in found if value]
        assert found, f"{of} by {alternative} was not measured"
        places = [place - 0.43 + width * (number + 0.5) for place, _ in found]
        p50 = [value[0] for _, value in found]
        above = [max(value[1] - value[0], 0) for _, value in found]
        at.bar(places, p50, width * 0.92, color=colour, label=label)
        at.errorbar(places, p50, yerr=[[0] * len(above), above], fmt="none", ecolor=FAINT, elinewidth=0.8, capsize=1.5)
    at.set_yscale("log")
    at.set_xticks(range(len(CLOSURES)), [title for _, title in CLOSURES])
    save(figure, at, out, name)


def beside(run, out):
    figure, at = axes("Warm publish with many volumes on the node: nothing grows", "ms, p50")
    series = [("publish, warm", BLUE, "publish-warm", "publish-warm"), ("unpublish", ORANGE, "unpublish", "unpublish"),
              ("bare gRPC call", GREY, "grpc-call", "grpc-call")]
    for label, colour, first, name in series:
        for closure, style in (("small", "-"), ("large", "--")):
            names = [(0, first), (1000, name + "-beside-1000"), (5000, name + "-beside-5000")]
            points = [(count, run.ms(of, OURS, closure)) for count, of in names]
            points = [(count, value[0]) for count, value in points if value]
            at.plot(*zip(*points), style, color=colour, marker="o", markersize=3,
                    label=f"{label}, {dict(CLOSURES)[closure].splitlines()[0]}")
    at.set_ylim(bottom=0)
    at.set_xlabel("volumes present", color=FAINT)
    save(figure, at, out, "volumes")


def growth(run, out):
    figure, at = axes("First volume of a closure, by its number of store paths", "ms, p50, logarithmic")
    series = [("nix-csi, view on ext4", BLUE, "publish-cold", OURS),
              ("nix-csi, view on a tmpfs", LIGHT, "publish-cold", "nix-csi, views on tmpfs"),
              ("a bind mount per path", ORANGE, "publish-warm", "bind-per-path"),
              ("a hard link per file", RED, "publish-cold", "hard links")]
    for label, colour, name, alternative in series:
        points = [(count, run.ms(name, alternative, closure)) for closure, count in PATHS.items()]
        points = [(count, value[0]) for count, value in points if value]
        at.plot(*zip(*points), color=colour, marker="o", markersize=3, label=label)
    at.set_xscale("log")
    at.set_yscale("log")
    at.set_xlabel("store paths, logarithmic", color=FAINT)
    save(figure, at, out, "paths")


def clusters(run, out):
    figure, at = axes("A cache of one cluster: what grows with the nodes", "each in its own unit, logarithmic")
    series = [("the first list of builders, ms of a processor", BLUE, "-", "registry-list", 1e3),
              ("a builder more, ms of a processor", LIGHT, "-", "registry-change", 1e3),
              ("what all builders said, ms", GREY, "-", "registry-answers", 1e3),
              ("the machines file, kB", GREEN, "--", "machines-file", 1e-3),
              ("uploads: sessions in the busiest second", ORANGE, "--", "uploads-busiest-second", 1)]
    for label, colour, style, name, each in series:
        at.plot(*zip(*run.by_nodes(name, each)), style, color=colour, marker="o", markersize=3, label=label)
    at.set_xscale("log")
    at.set_yscale("log")
    at.set_xlabel("nodes, logarithmic", color=FAINT)
    save(figure, at, out, "clusters")


def main():
    file, out = sys.argv[1:]
    run = Run(file)
    os.makedirs(out, exist_ok=True)
    bars(run, out, "publish", "What a volume waits for", [
        ("bare gRPC call", GREY, "grpc-call", OURS),
        ("publish, warm", BLUE, "publish-warm", OURS),
        ("publish, cold: first of its closure", LIGHT, "publish-cold", OURS),
        ("a bind mount per path", ORANGE, "publish-warm", "bind-per-path"),
        ("a hard link per file, once", RED, "publish-cold", "hard links"),
        ("an OCI image, unpacked by containerd", BROWN, "publish-cold", "OCI image"),
        ("Nix's commands and a copy, per volume", GREEN, "publish-warm", "nix, rsync, load-db"),
    ])
    beside(run, out)
    growth(run, out)
    clusters(run, out)


main()
