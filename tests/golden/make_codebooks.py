#!/usr/bin/env python3
"""Writes kvshard/lloyd_max.def and kvshard/level_sets.def: scalar codebooks for N(0, 1).

usage: python3 tests/golden/make_codebooks.py [--check]     from the repository root

--check writes nothing and fails if a number on disk differs by more than 1e-14 (libraries round the
last digit of exp and erfc differently).

A Lloyd-Max codebook is stationary: every centroid is the mean of its cell, every threshold the
midpoint of two centroids.  The positive half is found by Newton's method on c_i = mean of cell i (a
tridiagonal system).  Cell masses and means come from Gauss-Legendre quadrature about the cell's
centre, which keeps full relative precision where differences of erf would lose it; the outermost
cell has closed form by erfc.
"""

import math
import pathlib
import re
import sys

MAX_BITS = 8
RESIDUAL = 1e-13  # what the tables are accepted at
LEVEL_SETS = {  # positive halves: int8 levels of pages with few bits
    2: [38, 127],
    3: [13, 40, 71, 114],
    4: [m + 0.5 for m in (5, 16, 27, 39, 52, 67, 86, 114)],
}
PER_LINE = 4


def gauss_legendre(n):
    """Nodes and weights on [-1, 1]."""
    points = []
    for i in range(n):
        x = math.cos(math.pi * (i + 0.75) / (n + 0.5))
        for _ in range(100):
            p0, p1 = 1.0, x
            for k in range(2, n + 1):
                p0, p1 = p1, ((2 * k - 1) * x * p1 - (k - 1) * p0) / k
            slope = n * (x * p1 - p0) / (x * x - 1.0)
            step = p1 / slope
            x -= step
            if abs(step) < 1e-16:
                break
        points.append((x, 2.0 / ((1.0 - x * x) * slope * slope)))
    return points


POINTS = gauss_legendre(24)


def phi(z):
    return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def cell(low, high):
    """Mass and mean of N(0, 1) on [low, high]; high may be infinite."""
    if math.isinf(high):
        mass = 0.5 * math.erfc(low / math.sqrt(2.0))
        return mass, phi(low) / mass
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    terms = [(w * phi(centre + half * x), half * x) for x, w in POINTS]
    mass = math.fsum(t for t, _ in terms)
    offset = math.fsum(t * d for t, d in terms) / mass
    return mass * half, centre + offset


def edges(levels):
    """Cell bounds of a positive half, from 0 to infinity."""
    return [0.0] + [0.5 * (a + b) for a, b in zip(levels, levels[1:])] + [math.inf]


def solve_tridiagonal(low, mid, up, right):
    """low[i] x[i-1] + mid[i] x[i] + up[i] x[i+1] = right[i]"""
    n = len(mid)
    mid, right = mid[:], right[:]
    for i in range(1, n):
        f = low[i] / mid[i - 1]
        mid[i] -= f * up[i - 1]
        right[i] -= f * right[i - 1]
    x = [0.0] * n
    for i in reversed(range(n)):
        x[i] = (right[i] - (up[i] * x[i + 1] if i + 1 < n else 0.0)) / mid[i]
    return x


def residuals(levels):
    t = edges(levels)
    return [c - cell(t[i], t[i + 1])[1] for i, c in enumerate(levels)]


def lloyd_max(bits, guess):
    """The positive half of the codebook of 2^bits levels."""
    levels = guess
    n = len(levels)
    for _ in range(60):
        t = edges(levels)
        low, mid, up, f = [0.0] * n, [1.0] * n, [0.0] * n, [0.0] * n
        for i in range(n):
            mass, mean = cell(t[i], t[i + 1])
            f[i] = mean - levels[i]
            if i > 0:  # d mean / d t_i, and t_i moves half as far as either centroid
                g = 0.5 * phi(t[i]) * (mean - t[i]) / mass
                low[i] -= g
                mid[i] -= g
            if i + 1 < n:
                g = 0.5 * phi(t[i + 1]) * (t[i + 1] - mean) / mass
                up[i] -= g
                mid[i] -= g
        step = solve_tridiagonal(low, mid, up, f)
        new = [c + s for c, s in zip(levels, step)]
        if any(b <= a for a, b in zip([0.0] + new, new)):  # too bold: one Lloyd step instead
            new = [c + r for c, r in zip(levels, f)]
        done = max(abs(a - b) for a, b in zip(new, levels)) < 1e-15
        levels = new
        if done:
            break
    worst = max(abs(r) for r in residuals(levels))
    if worst > RESIDUAL:
        raise SystemExit(f"{bits} bits: residual {worst:g} above {RESIDUAL:g}")
    return levels


def first_guess(n):
    """Quantiles of N(0, 3), whose density is that of an optimal fine quantiser."""
    def quantile(p):
        low, high = 0.0, 12.0
        for _ in range(80):
            z = 0.5 * (low + high)
            low, high = (z, high) if 0.5 * math.erfc(-z / math.sqrt(2.0)) < p else (low, z)
        return low
    return [math.sqrt(3.0) * quantile(0.5 + (i + 0.5) / (2.0 * n)) for i in range(n)]


def best_scale(levels):
    """s that minimises E (z - s Q)^2 with thresholds at the midpoints: s = E[z l] / E[l^2]."""
    s = 1.0 / levels[-1]
    for _ in range(10000):
        t = edges([s * level for level in levels])
        cells = [cell(t[i], t[i + 1]) for i in range(len(levels))]
        new = (math.fsum(level * mass * mean for level, (mass, mean) in zip(levels, cells)) /
               math.fsum(level * level * mass for level, (mass, _) in zip(levels, cells)))
        if abs(new - s) <= 1e-17:
            return new
        s = new
    return s


def distortion(levels):
    """E (z - Q(z))^2, both halves."""
    t = edges(levels)
    total = 1.0
    for i, c in enumerate(levels):
        mass, mean = cell(t[i], t[i + 1])
        total += 2.0 * mass * c * (c - 2.0 * mean)
    return total


def same(a, b):
    """Same text but for rounding of its numbers."""
    number = r"\d+\.\d+(?:e-?\d+)?"
    numbers = [[float(n) for n in re.findall(number, text)] for text in (a, b)]
    return (re.sub(number, "#", a) == re.sub(number, "#", b) and
            all(abs(x - y) <= 1e-14 for x, y in zip(*numbers)))


def main():
    command = "python3 tests/golden/make_codebooks.py"
    tables = {bits: lloyd_max(bits, first_guess(1 << (bits - 1))) for bits in range(1, MAX_BITS + 1)}

    text = [f"/* Lloyd-Max centroids of N(0, 1), positive halves, ascending, 1 bit first: the half of b bits",
            f" * starts at 2^(b-1) - 1.  Made by: {command} */"]
    for bits, levels in tables.items():
        text.append(f"/* {bits} bits */")
        for i in range(0, len(levels), PER_LINE):
            text.append(" ".join(f"{c:.17g}," for c in levels[i:i + PER_LINE]))
    sets = ["/* X(bits, scale, positive half of the levels ...): integer codebooks, and the scale that minimises",
            f" * the distortion for N(0, 1).  Made by: {command} */"]
    for bits, levels in LEVEL_SETS.items():
        scale = best_scale(levels)
        sets.append(f"X({bits}, {scale:.17g}, {', '.join(f'{level:g}' for level in levels)})")
        exact = distortion(tables[bits])
        excess = distortion([scale * level for level in levels]) / exact - 1.0
        print(f"{bits} bits: D {exact:.8f}, integer levels {100.0 * excess:.4f} % above")

    for name, lines in (("kvshard/lloyd_max.def", text), ("kvshard/level_sets.def", sets)):
        path = pathlib.Path(name)
        content = "\n".join(lines) + "\n"
        if "--check" in sys.argv[1:]:
            if not same(path.read_text(), content):
                raise SystemExit(f"{name} differs from what this script computes")
        else:
            path.write_text(content)


main()
