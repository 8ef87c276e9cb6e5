#!/usr/bin/python3
"""What bench/peers.py recorded of inference, as a page and a picture.

    bench/plot.py [--records bench/results/inference.jsonl] [--output docs/results]
    bench/plot.py --commits 7668a3e --output docs/results/zen5      of a race on another machine

Writes inference.md, the newest table of each setup and the promised ratios, and inference.svg: images a second of every
contestant, a panel for each precision and batch size. The same records give the same bytes.
"""
import argparse
import contextlib
import html
import io
import os
import pathlib

import peers

ROOT = pathlib.Path(__file__).resolve().parent.parent
BATCHES = (32, 8, 1)  # of the panels
# Ours have colours that nobody shares. Those of the peers differ in hue and lightness (of Okabe and Ito's and of Tol's); within a
# panel there are fewer peers than colours. All stand on light and on dark ground.
OUR_COLOURS = ("#d55e00", "#f4a261", "#9a4400")
COLOURS = ("#56b4e9", "#0072b2", "#009e73", "#cc79a7", "#e6b800", "#8c8c8c", "#7a5195", "#44aa99", "#882255", "#999933", "#6699cc",
           "#117733", "#aa4499", "#b0b0b0", "#4477aa")
OURS = "resnet.cpp"
WIDTH, LEFT, PANEL, BAR, GAP = 960, 60, 190, 14, 16


def panels_of(records):
    """[(title, {model: {contestant: img/s}})] of the records, f32 first."""
    panels = []
    for precision in peers.PEERS_OF:
        for batch in BATCHES:
            rates = {model: {row["name"]: row["median"] for row in record["results"]}
                     for (model, kind, size), record in sorted(records.items(), key=lambda item: model_order(item[0][0]))
                     if (kind, size) == (precision, batch)}
            if rates:
                panels.append((f"{precision}, batch {batch}", rates))
    return panels


def model_order(model):
    digits = "".join(c for c in model if c.isdigit())
    return int(digits or 0), model


def round_up(value):
    """The next of 1, 2, 5, 10, ..."""
    step = 1.0
    while True:
        for factor in (1, 2, 5):
            if value <= factor * step:
                return factor * step
        step *= 10


def svg(panels):
    names = sorted({name for _, rates in panels for row in rates.values() for name in row}, key=lambda n: (not n.startswith(OURS), n))
    colour = {name: of[i % len(of)] for mine, of in ((True, OUR_COLOURS), (False, COLOURS))
              for i, name in enumerate(name for name in names if name.startswith(OURS) == mine)}
    legend_rows = -(-len(names) // 3)
    top = 30 + 20 * legend_rows
    height = top + len(panels) * (PANEL + 60)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" role="img">',
           "<title>Inference: images a second</title>",
           "<style>text{fill:#222}.grid{stroke:#ccc}@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}}</style>"]
    for i, name in enumerate(names):
        x, y = LEFT + (i % 3) * 300, 12 + 20 * (i // 3)
        out.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour[name]}"/>'
                   f'<text x="{x + 18}" y="{y + 10}">{html.escape(name)}</text>')
    for number, (title, rates) in enumerate(panels):
        y0 = top + number * (PANEL + 60) + 24
        most = round_up(max(rate for row in rates.values() for rate in row.values()))
        out.append(f'<text x="{LEFT}" y="{y0 - 10}" font-weight="bold">{html.escape(title)}: images a second</text>')
        for part in range(5):
            y = y0 + PANEL * (1 - part / 4)
            out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>'
                       f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{most * part / 4:g}</text>')
        slot = (WIDTH - LEFT - 10) / len(rates)
        for column, (model, row) in enumerate(rates.items()):
            x = LEFT + column * slot + GAP / 2
            bar = min(BAR, (slot - GAP) / len(row))
            for place, name in enumerate(name for name in names if name in row):
                tall = PANEL * row[name] / most
                out.append(f'<rect x="{x + place * bar:.1f}" y="{y0 + PANEL - tall:.1f}" width="{bar - 1:.1f}" height="{tall:.1f}" '
                           f'fill="{colour[name]}"><title>{html.escape(name)}: {row[name]:.1f}</title></rect>')
            out.append(f'<text x="{x}" y="{y0 + PANEL + 16}">{html.escape(model)}</text>')
    return "\n".join([*out, "</svg>", ""])


def page(records, commits, how):
    of_commits = f" --commits {','.join(commits)}" if commits else ""
    lines = ["# Inference beside its peers", "",
             f"Written by `bench/plot.py{of_commits}` from `bench/results/inference.jsonl`: the newest record of each setup, of `make bench-inference` or a part of it",
             f"([how it is measured]({how})).", "", "![images a second of every contestant](inference.svg)", "",
             "## What was promised", "", "```", *peers.report(records), "```", ""]
    precisions = list(peers.PEERS_OF)
    for model, precision, batch in sorted(records, key=lambda setup: (*model_order(setup[0]), precisions.index(setup[1]), setup[2])):
        record = records[model, precision, batch]
        table = io.StringIO()
        with contextlib.redirect_stdout(table):
            peers.print_table(record["results"], record["skipped"])
        lines += [f"## {model}, {precision}, batch {batch}", "",
                  f"{record['threads']} threads, {record['cpu']} ({', '.join(record['isa'])}), {record['rounds']} rounds of "
                  f"{record['runs']}, commit {record['commit']}, {record['date'][:10]}.", "", "```", table.getvalue().rstrip(), "```", ""]
    return "\n".join([*lines, peers.EXPLANATION, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=pathlib.Path, default=ROOT / "bench/results/inference.jsonl", help="default %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs/results", help="the folder (default %(default)s)")
    parser.add_argument("--commits", type=peers.names, default=[], help="of these alone, by their first digits (default: the newest race's)")
    args = parser.parse_args()
    records = peers.newest_records(args.records, args.commits)
    if not records:
        raise SystemExit(f"plot: error: {args.records}: no record of these commits; run `make bench-inference` first")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "inference.svg").write_text(svg(panels_of(records)))
    (args.output / "inference.md").write_text(page(records, args.commits, os.path.relpath(ROOT / "bench/README.md", args.output)))


if __name__ == "__main__":
    main()
