#!/usr/bin/env python3
"""Draws what `ropewalk bench scale --json` found with several numbers of ranks: strong and weak scaling, as SVG.

usage: plot_scale.py -o FILE.svg REPORT.json..

A row of two panels for each model, batch and policy.  Strong: ms a step of one context over ranks, dashed what N times as
many ranks would ideally give.  Weak: of as many positions a rank, dashed the least number of ranks' time.  Of reports with
--prefill another row for each model, chunk and policy: seconds of a prompt, and how many times faster it is than on the
least number of ranks.
"""
import argparse
import json
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LINE = 380, 260, 56, 36, 40, 12
COLORS = ("#1b6ca8", "#c8553d", "#3d8b5f", "#8a5aa8", "#b8860b", "#4a4a4a", "#d16ba5", "#2a9d8f")


def length(n):
    for unit, size in (("M", 1 << 20), ("K", 1 << 10)):
        if n >= size and n % size == 0:
            return f"{n // size}{unit}"
    return str(n)


def collect(reports):
    """{(model, batch, policy): {context: {ranks: ms}}}"""
    found = {}
    for report in reports:
        for row in report["rows"]:
            if row["fits"]:
                key = report["model"], report["batch"], row["policy"]
                found.setdefault(key, {}).setdefault(row["context"], {})[report["ranks"]] = row["step_ms"]
    return found


def collect_prompts(reports):
    """{(model, chunk, policy): {context: {ranks: s}}}"""
    found = {}
    for report in reports:
        for row in report["prefill"]:
            if row["fits"]:
                key = report["model"], report["prefill_chunk"], row["policy"]
                found.setdefault(key, {}).setdefault(row["context"], {})[report["ranks"]] = row["prefill_ms"] * 1e-3
    return found


def strong(contexts):
    """[(label, [(ranks, time)], [(ranks, ideal time)])]"""
    lines = []
    for context, times in sorted(contexts.items()):
        points = sorted(times.items())
        first, ms = points[0]
        lines.append((length(context), points, [(n, ms * first / n) for n, _ in points]))
    return lines


def weak(contexts):
    shares = {}
    for context, times in contexts.items():
        for n, ms in times.items():
            if context % n == 0:
                shares.setdefault(context // n, {})[n] = ms
    lines = []
    for share, times in sorted(shares.items()):
        points = sorted(times.items())
        if len(points) > 1:
            lines.append((f"{length(share)} a rank", points, [(n, points[0][1]) for n, _ in points]))
    return lines


def speed_up(contexts):
    lines = []
    for context, times in sorted(contexts.items()):
        points = sorted(times.items())
        first, time = points[0]
        found = [(n, time / of_n) for n, of_n in points]
        lines.append((f"{length(context)}: {found[-1][1]:.2f}", found, [(n, n / first) for n, _ in points]))
    return lines


def scale(low, high, begin, end):
    """Of a logarithmic axis."""
    from math import log
    low, high = (low / 1.2, high * 1.2) if low == high else (low, high)
    return lambda value: begin + (end - begin) * log(value / low) / log(high / low)


def ticks(low, high):
    values, at = [], 10.0 ** -4
    while at <= high * 1.0001:
        values += [at * m for m in (1, 2, 5) if low * 0.9999 <= at * m <= high * 1.0001]
        at *= 10
    return values


def panel(title, lines, left, top, unit=" ms"):
    right, bottom = left + WIDTH - LEFT - 90, top + HEIGHT - TOP - BOTTOM
    out = [f'<text x="{left}" y="{top - 12}" font-weight="bold">{escape(title)}</text>',
           f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="none" stroke="#999"/>',
           f'<text x="{(left + right) / 2:.0f}" y="{bottom + 32}" text-anchor="middle">ranks</text>']
    points = [p for _, measured, ideal in lines for p in (*measured, *ideal)]
    if not points:
        return [*out, f'<text x="{left + 8}" y="{top + 20}">no two numbers of ranks have it</text>']
    counts = sorted({n for n, _ in points})
    low, high = min(value for _, value in points) / 1.1, max(value for _, value in points) * 1.1
    x, y = scale(counts[0], counts[-1], left + 12, right - 12), scale(low, high, bottom, top)
    for n in counts:
        out.append(f'<text x="{x(n):.1f}" y="{bottom + 16}" text-anchor="middle">{n}</text>')
    for tick in ticks(low, high):
        out.append(f'<line x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#eee"/>')
        out.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}{unit}</text>')
    labels = []
    for i, (label, measured, ideal) in enumerate(lines):
        color = COLORS[i % len(COLORS)]
        path = " L".join(f"{x(n):.1f},{y(value):.1f}" for n, value in ideal)
        out.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-dasharray="3 4"/>')
        path = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in measured)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        out += [f'<circle cx="{x(n):.1f}" cy="{y(value):.1f}" r="3" fill="{color}"/>' for n, value in measured]
        labels.append((y(measured[-1][1]) + 4, color, label))
    lowest = 0.0
    for at, color, label in sorted(labels):
        lowest = max(at, lowest + LINE)
        out.append(f'<text x="{right + 6}" y="{lowest:.1f}" fill="{color}">{escape(label)}</text>')
    return out


def draw(found, prompts):
    out, top = [], TOP
    for (model, batch, policy), contexts in sorted(found.items()):
        name = f"{model}, {policy}" + (f", batch {batch}" if batch > 1 else "")
        out += panel(f"{name}: strong", strong(contexts), LEFT, top)
        out += panel(f"{name}: weak", weak(contexts), LEFT + WIDTH, top)
        top += HEIGHT
    for (model, chunk, policy), contexts in sorted(prompts.items()):
        name = f"{model}, {policy}, prefill in chunks of {chunk}"
        out += panel(f"{name}: seconds", strong(contexts), LEFT, top, " s")
        out += panel("speed-up", speed_up(contexts), LEFT + WIDTH, top, "")
        top += HEIGHT
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH + 20}" height="{top}" '
            'font-family="sans-serif" font-size="11">')
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *out, "</svg>\n"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", required=True, metavar="FILE.svg")
    parser.add_argument("reports", nargs="+", metavar="REPORT.json")
    given = parser.parse_args()
    reports = []
    for path in given.reports:
        with open(path) as file:
            reports.append(json.load(file))
    with open(given.out, "w") as file:
        file.write(draw(collect(reports), collect_prompts(reports)))


if __name__ == "__main__":
    main()
