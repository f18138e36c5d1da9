"""Results files as COCO's evaluation server and pycocotools take them: numbers of COCO in place of names and labels."""

from ..structures import Detections, Target
from .results import to_results


def to_coco_results(
    detections: list[Detections], targets: list[Target], image_numbers: dict, category_ids: tuple[int, ...]
) -> list[dict]:
    """The entries of some images: {"image_id": number, "category_id": number, "bbox": [x, y, width, height] in 0-based
    pixels, "score"}.

    image_numbers {image_id of a target: its number in the annotation file}; category_ids, those of the classes in the
    order of their labels.  A `ResultsWriter` writes them.
    """
    entries = []
    for found, target in zip(detections, targets, strict=True):
        for entry in to_results([found], [target]):
            category_id = category_ids[entry["category_id"] - 1]
            kept = {key: entry[key] for key in ("bbox", "score")}
            entries.append({"image_id": image_numbers[target.image_id], "category_id": category_id} | kept)
    return entries
