"""Where the boxes and lines of a DAG go: layers from left to right.

Rules of this file: no I/O; it knows nothing of text or colours. After Sugiyama, Tagawa and Toda,
"Methods for visual understanding of hierarchical system structures" (1981): columns by longest
path, order within a column by barycentre, then heights. Groups are bands side by side; groups
that do not follow one another share a band and lie above each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import TypeAlias

#: Between two boxes of a column; between two lines that pass, or a line and a box.
_GAP, _LINE_GAP = 16.0, 14.0
#: A column of more boxes than this is set closer.
_MANY = 12
#: Between columns: grows with the picture's height, lest lines become too steep.
_COLUMN_GAP, _WIDEST_COLUMN_GAP = 48.0, 140.0
#: A group's frame around its boxes, and the room for its name.
_PAD, _HEADER, _MARGIN = 14.0, 24.0, 12.0
_SWEEPS = 12

Link: TypeAlias = tuple[str, str]
#: A place in a column: the box of a key, or where the lines that leave it pass that column.
Slot: TypeAlias = tuple[str, int]
#: A group's share of its band: the band and a number from above.
Lane: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Item:
    """A box to be placed; ``width`` in pixels."""

    key: str
    group: str
    width: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; ``y`` grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """Half-way down."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes by key, frames by group, and for each link the points that its line passes, in pairs.

    The line curves from the first point of a pair to the second and is straight from there to the
    next pair.
    """

    boxes: Mapping[str, Box]
    frames: Mapping[str, Box]
    routes: Mapping[Link, tuple[tuple[float, float], ...]]
    width: float
    height: float


def arrange(items: Sequence[Item], links: Iterable[Link], *, box_height: float) -> Layout:
    """Return the places of ``items``; every link leads from left to right.

    Raises
    ------
    ValueError
        If the links form a cycle.
    """
    links = list(dict.fromkeys(links))
    bands = _bands(items, links)
    columns, band_of = _columns(items, links, bands)
    chains = {link: _chain(link, columns) for link in links}
    rows = _rows(items, columns, chains)
    lanes = _lanes(items, rows, band_of, bands)
    left, right = _neighbours(chains.values())
    _order(rows, lanes, left, right)
    heights = {slot: box_height if columns[slot[0]] == slot[1] else 0.0 for row in rows for slot in row}
    middles = _middles(rows, lanes, heights, left, right)
    return _draw(items, columns, band_of, chains, lanes, middles, box_height)


def _bands(items: Sequence[Item], links: Sequence[Link]) -> dict[str, int]:
    """Return each group's band; all the same one if groups need each other."""
    group = {item.key: item.group for item in items}
    joined = [(group[source], group[target]) for source, target in links]
    try:
        return _ranks(list(dict.fromkeys(group.values())), [link for link in joined if link[0] != link[1]])
    except CycleError:
        return dict.fromkeys(group.values(), 0)


def _ranks(keys: Sequence[str], links: Iterable[Link]) -> dict[str, int]:
    """Return the length of the longest path that ends at each key."""
    before: dict[str, list[str]] = {key: [] for key in keys}
    for source, target in links:
        before[target].append(source)
    ranks: dict[str, int] = {}
    for key in TopologicalSorter(before).static_order():
        ranks[key] = max((ranks[other] + 1 for other in before[key]), default=0)
    return ranks


def _columns(
    items: Sequence[Item], links: Sequence[Link], bands: Mapping[str, int]
) -> tuple[dict[str, int], list[int]]:
    """Return each key's column, and each column's band."""
    band = {item.key: bands[item.group] for item in items}
    within = _ranks(list(band), [(a, b) for a, b in links if band[a] == band[b]])
    columns: dict[str, int] = {}
    band_of: list[int] = []
    for number in sorted(set(band.values())):
        first = len(band_of)
        members = [key for key in band if band[key] == number]
        columns.update((key, first + within[key]) for key in members)
        band_of += [number] * (1 + max(within[key] for key in members))
    return columns, band_of


def _chain(link: Link, columns: Mapping[str, int]) -> list[Slot]:
    """Return the slots that a link passes; links from one box share theirs, as a trunk that branches."""
    source, target = link
    return [
        *((source, column) for column in range(columns[source], columns[target])),
        (target, columns[target]),
    ]


def _rows(
    items: Sequence[Item], columns: Mapping[str, int], chains: Mapping[Link, Sequence[Slot]]
) -> list[list[Slot]]:
    """Return the slots of each column, boxes as given and then lines."""
    slots = [(item.key, columns[item.key]) for item in items]
    slots += [slot for chain in chains.values() for slot in chain]
    rows: list[list[Slot]] = [[] for _ in range(1 + max(columns.values(), default=-1))]
    for slot in dict.fromkeys(slots):
        rows[slot[1]].append(slot)
    return rows


def _lanes(
    items: Sequence[Item],
    rows: Sequence[Sequence[Slot]],
    band_of: Sequence[int],
    bands: Mapping[str, int],
) -> dict[Slot, Lane]:
    """Return each slot's lane; lines that only pass a band of several groups lie below them."""
    group = {item.key: item.group for item in items}
    members: dict[int, list[str]] = {}
    for name in dict.fromkeys(group.values()):
        members.setdefault(bands[name], []).append(name)
    lanes: dict[Slot, Lane] = {}
    for row in rows:
        for key, column in row:
            band = band_of[column]
            inside = members[band]
            beside = 0 if len(inside) == 1 else len(inside)
            lanes[key, column] = band, inside.index(group[key]) if group[key] in inside else beside
    return lanes


def _neighbours(chains: Iterable[Sequence[Slot]]) -> tuple[dict[Slot, list[Slot]], dict[Slot, list[Slot]]]:
    """Return what each slot is joined to in the column before, and in the column after."""
    left: dict[Slot, dict[Slot, None]] = {}
    right: dict[Slot, dict[Slot, None]] = {}
    for chain in chains:
        for one, other in pairwise(chain):
            right.setdefault(one, {})[other] = None
            left.setdefault(other, {})[one] = None
    return {slot: list(found) for slot, found in left.items()}, {
        slot: list(found) for slot, found in right.items()
    }


def _order(
    rows: list[list[Slot]],
    lanes: Mapping[Slot, Lane],
    left: Mapping[Slot, Sequence[Slot]],
    right: Mapping[Slot, Sequence[Slot]],
) -> None:
    """Sort each column by the mean place of what its slots are joined to, from both sides in turn."""
    place = {slot: _share(number, row) for row in rows for number, slot in enumerate(row)}

    def key(slot: Slot, joined: Mapping[Slot, Sequence[Slot]]) -> tuple[Lane, float]:
        others = joined.get(slot, ())
        return lanes[slot], sum(place[other] for other in others) / len(others) if others else place[slot]

    for sweep in range(_SWEEPS):
        joined = right if sweep % 2 else left
        for row in reversed(rows) if sweep % 2 else rows:
            row.sort(key=lambda slot: key(slot, joined))
            place.update((slot, _share(number, row)) for number, slot in enumerate(row))


def _share(number: int, row: Sequence[Slot]) -> float:
    return (number + 0.5) / len(row)


def _middles(
    rows: Sequence[Sequence[Slot]],
    lanes: Mapping[Slot, Lane],
    heights: Mapping[Slot, float],
    left: Mapping[Slot, Sequence[Slot]],
    right: Mapping[Slot, Sequence[Slot]],
) -> dict[Slot, float]:
    """Return each slot's vertical middle, drawn towards what it is joined to, in order and apart."""
    stacks = [_stacks(row, lanes) for row in rows]
    bounds = _bounds(stacks, heights)
    middles: dict[Slot, float] = {}
    for sweep in range(_SWEEPS):
        sides = [left, right] if sweep >= _SWEEPS - 2 else [right if sweep % 2 else left]
        for row in reversed(stacks) if sweep % 2 else stacks:
            for lane, stack in row.items():
                top, bottom = bounds[lane]
                middle = (top + bottom) / 2
                wishes = [_wish(slot, middles, heights, sides, middles.get(slot, middle)) for slot in stack]
                offsets = _offsets(stack, heights)
                first = top + heights[stack[0]] / 2
                last = bottom - heights[stack[-1]] / 2 - offsets[-1]
                middles.update(zip(stack, _spread(wishes, offsets, first, last), strict=True))
    return middles


def _wish(
    slot: Slot,
    middles: Mapping[Slot, float],
    heights: Mapping[Slot, float],
    sides: Iterable[Mapping[Slot, Sequence[Slot]]],
    own: float,
) -> float:
    """Return where ``slot`` would like to be: lines stay straight, boxes heed boxes more than lines."""
    joined = [other for side in sides for other in side.get(slot, ()) if other in middles]
    line_weight = 0.25 if heights[slot] else 3.0
    weights = [1.0 if heights[other] else line_weight for other in joined]
    total = sum(weight * middles[other] for weight, other in zip(weights, joined, strict=True))
    return total / sum(weights) if weights else own


def _spread(wishes: Sequence[float], offsets: Sequence[float], first: float, last: float) -> list[float]:
    """Return the places nearest to ``wishes`` (least squares) that are in order and apart.

    Pool adjacent violators, after Barlow et al., "Statistical Inference under Order Restrictions"
    (1972), section 1.2; ``first`` and ``last`` bound the place of the topmost.
    """
    pools: list[tuple[float, int]] = []
    for wish, offset in zip(wishes, offsets, strict=True):
        total, count = wish - offset, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            earlier = pools.pop()
            total, count = total + earlier[0], count + earlier[1]
        pools.append((total, count))
    flat = [total / count for total, count in pools for _ in range(count)]
    return [max(first, min(place, last)) + offset for place, offset in zip(flat, offsets, strict=True)]


def _bounds(
    stacks: Sequence[Mapping[Lane, Sequence[Slot]]], heights: Mapping[Slot, float]
) -> dict[Lane, tuple[float, float]]:
    """Return where each lane begins and ends; lanes of one band leave room for their frames."""
    needs: dict[Lane, float] = {}
    for row in stacks:
        for lane, stack in row.items():
            need = _offsets(stack, heights)[-1] + (heights[stack[0]] + heights[stack[-1]]) / 2
            needs[lane] = max(needs.get(lane, 0.0), need)
    between = _HEADER + 3 * _PAD
    totals: dict[int, float] = {}
    for (band, _), need in needs.items():
        totals[band] = totals[band] + between + need if band in totals else need
    tallest = max(totals.values(), default=0.0)
    bounds: dict[Lane, tuple[float, float]] = {}
    tops = {band: (tallest - total) / 2 for band, total in totals.items()}
    for lane in sorted(needs):
        top = tops[lane[0]]
        bounds[lane] = top, top + needs[lane]
        tops[lane[0]] += needs[lane] + between
        if totals[lane[0]] == needs[lane]:
            bounds[lane] = 0.0, tallest
    return bounds


def _stacks(row: Sequence[Slot], lanes: Mapping[Slot, Lane]) -> dict[Lane, list[Slot]]:
    found: dict[Lane, list[Slot]] = {}
    for slot in row:
        found.setdefault(lanes[slot], []).append(slot)
    return found


def _offsets(stack: Sequence[Slot], heights: Mapping[Slot, float]) -> list[float]:
    """Return how far below the first slot's middle each slot's middle must be at least."""
    box_gap = _GAP if len(stack) <= _MANY else _GAP / 2
    found = [0.0]
    for one, other in pairwise(stack):
        gap = box_gap if heights[one] and heights[other] else _LINE_GAP
        found.append(found[-1] + (heights[one] + heights[other]) / 2 + gap)
    return found


def _draw(
    items: Sequence[Item],
    columns: Mapping[str, int],
    band_of: Sequence[int],
    chains: Mapping[Link, Sequence[Slot]],
    lanes: Mapping[Slot, Lane],
    middles: Mapping[Slot, float],
    box_height: float,
) -> Layout:
    """Return the layout once every slot's middle is known."""
    if not items:
        return Layout({}, {}, {}, 0.0, 0.0)
    widths = [0.0] * len(band_of)
    for item in items:
        widths[columns[item.key]] = max(widths[columns[item.key]], item.width)
    starts = _starts(widths, band_of, max(middles.values()) - min(middles.values()))
    boxes = {}
    for item in items:
        column = columns[item.key]
        y = middles[item.key, column] - box_height / 2
        boxes[item.key] = Box(starts[column], y, widths[column], box_height)
    reaches: dict[Lane, list[float]] = {}
    for slot, middle in middles.items():
        reaches.setdefault(lanes[slot], []).append(middle)
    reach = {item.group: reaches[lanes[item.key, columns[item.key]]] for item in items}
    frames = _frames(items, boxes, reach)
    top = min(*(frame.y for frame in frames.values()), *middles.values()) - _MARGIN
    middles = {slot: middle - top for slot, middle in middles.items()}
    boxes = {key: replace(box, y=box.y - top) for key, box in boxes.items()}
    frames = {name: replace(frame, y=frame.y - top) for name, frame in frames.items()}
    routes = {}
    for link, chain in chains.items():
        points: list[tuple[float, float]] = []
        for slot in chain:
            points += [(starts[slot[1]], middles[slot]), (starts[slot[1]] + widths[slot[1]], middles[slot])]
        routes[link] = tuple(points[1:-1])
    width = max(frame.right for frame in frames.values()) + _MARGIN
    height = max(*(frame.bottom for frame in frames.values()), *middles.values()) + _MARGIN
    return Layout(boxes, frames, routes, width, height)


def _starts(widths: Sequence[float], band_of: Sequence[int], height: float) -> list[float]:
    """Return where each column begins."""
    gap = max(_COLUMN_GAP, min(0.12 * height, _WIDEST_COLUMN_GAP))
    starts = [_MARGIN + _PAD]
    for column in range(1, len(widths)):
        frames = 2 * _PAD if band_of[column] != band_of[column - 1] else 0.0
        starts.append(starts[-1] + widths[column - 1] + gap + frames)
    return starts


def _frames(
    items: Sequence[Item], boxes: Mapping[str, Box], reach: Mapping[str, Sequence[float]]
) -> dict[str, Box]:
    """Return each group's frame: around its boxes and what passes between, lest a line cross its name."""
    members: dict[str, list[Box]] = {}
    for item in items:
        members.setdefault(item.group, []).append(boxes[item.key])
    frames: dict[str, Box] = {}
    for name, inside in members.items():
        x, right = min(box.x for box in inside) - _PAD, max(box.right for box in inside) + _PAD
        top = min(*(box.y for box in inside), *reach[name]) - _PAD - _HEADER
        bottom = max(*(box.bottom for box in inside), *reach[name]) + _PAD
        frames[name] = Box(x, top, right - x, bottom - top)
    return frames
