"""What the check tool finds: problems by severity, each with the places where it was met."""

from collections import Counter
from dataclasses import dataclass, field

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass
class Offender:
    """One place where a problem was met.

    set: the set that it is in; image: the path, '' where no file can be named; what: a line that says what is wrong;
    annotation: the path of its file, '' where it is not known; boxes: [x1, y1, x2, y2] in pixels each; other: the set
    and the path of the image that it is compared with.
    """

    set: str
    image: str
    what: str
    annotation: str = ""
    boxes: list = field(default_factory=list)
    other: tuple[str, str] | None = None

    def as_entry(self) -> dict:
        """The same for a JSON file."""
        entry = {"set": self.set, "image": self.image, "annotation": self.annotation, "what": self.what}
        other = {"set": self.other[0], "image": self.other[1]} if self.other else None
        return {**entry, "boxes": self.boxes, "other": other}


@dataclass
class Problem:
    """Everything of one kind that is wrong.

    key: its name in reports; title: what is counted, such as 'box empty'; advice: what it means and what to do about
    it; counts: how many there are in each set, where not each has an offender.
    """

    key: str
    severity: str
    title: str
    advice: str
    offenders: list[Offender]
    counts: dict[str, int] | None = None

    @property
    def count(self) -> int:
        return len(self.offenders) if self.counts is None else sum(self.counts.values())

    def sets(self) -> str:
        """How many are in which set, such as 'train 3, test 1'."""
        counts = self.counts or Counter(offender.set for offender in self.offenders if offender.set)
        return ", ".join(f"{name} {count:,}" for name, count in counts.items())

    def headline(self) -> str:
        """Number and title, without a number where there is only one of its kind."""
        if self.title[:1].isupper():
            return self.title
        unit, _, rest = self.title.partition(" ")
        plural = unit if self.count == 1 else {"class": "classes", "box": "boxes"}.get(unit, f"{unit}s")
        return f"{self.count:,} {plural} {rest}".rstrip()

    def as_entry(self) -> dict:
        """The same for a JSON file."""
        return {
            "key": self.key,
            "severity": self.severity,
            "count": self.count,
            "what": self.headline(),
            "advice": self.advice,
            "found": [offender.as_entry() for offender in self.offenders],
        }


def worst_first(problems) -> list[Problem]:
    """The problems that were met, by severity; of equals those come first that were found first."""
    met = [problem for problem in problems if problem.offenders]
    return sorted(met, key=lambda problem: SEVERITIES.index(problem.severity))
