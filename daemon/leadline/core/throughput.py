"""How far a job was at which time: few points, however long it takes.

Nobody knows beforehand how long a job will take, and a plot needs some hundred points of all of it. So points are kept
at intervals, from a second on, and where there are too many every other one goes and the interval doubles. What is kept
is then even over the whole time, and of a long job there are never fewer than half as many as there may be.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from leadline.core.model import SECOND
from leadline_protocol.ids import Instant

POINTS_MAX: Final = 118
"""With where it began and where it ended they are 120."""


class Point(Struct, frozen=True, gc=False):
    """So many leads were at their end at that time, however they had ended."""

    at: Instant
    settled: int


class Throughput(Struct, frozen=True):
    """The points of a job, oldest first."""

    seconds: int = 1
    """Least time between two of them."""
    points: tuple[Point, ...] = ()

    @property
    def due(self) -> Instant:
        """When the next point may be kept."""
        return Instant(self.points[-1].at + self.seconds * SECOND) if self.points else Instant(0)


def with_point(course: Throughput, point: Point) -> Throughput:
    """The same with one more, where it is due."""
    if point.at < course.due:
        return course
    points = (*course.points, point)
    if len(points) <= POINTS_MAX:
        return Throughput(course.seconds, points)
    return Throughput(2 * course.seconds, points[-1::-2][::-1])


def between(points: Sequence[Point], began: Point, ended: Point | None) -> list[Point]:
    """All points of a job from where it began to where it ended, if it has; the clock of these may be another one."""
    if ended is None:
        return [began, *(point for point in points if point.at > began.at)]
    return [began, *(point for point in points if began.at < point.at < ended.at), ended]
