"""What the plan tool prints of a detector for video: memory, extractors and stages."""

from .plan_facts import Plan
from .plan_table import bytes_in_words, map_in_words, table_lines, wrap


def cells_section(plan: Plan) -> list[str]:
    """The recurrent layers; nothing for a detector that has none."""
    if not plan.cells:
        return []
    rows = [("level", "what it is", "reads", "remembers", "map", "parameters", "state")]
    for cell in plan.cells:
        groups = f", {cell.groups} groups" if cell.groups > 1 else ""
        rows.append((
            str(cell.level), cell.what + groups, " or ".join(map(str, cell.inputs)), str(cell.channels),
            map_in_words(cell.map), f"{cell.parameters:,}", bytes_in_words(cell.state_bytes),
        ))  # fmt: skip
    total = bytes_in_words(sum(cell.state_bytes for cell in plan.cells))
    lines = [f"RECURRENT LAYERS  {len(plan.cells)}, with {total} of state for a video", *table_lines(rows, "llrrrrr")]
    lines += wrap(
        "reads and remembers: channels. state: h and c in fp32, what goes from one frame of a video to the next; "
        "nothing does in the epochs on stills."
    )
    if not plan.in_use:
        lines += wrap("MODEL.RNN.IN_USE is False: every frame is taken as the first one of a video.")
    return lines


# ------------------------------------------------------------------------------------------------- extractors


def small_base_notes(plan: Plan) -> list[str]:
    """How to read the table of the small extractor."""
    facts = plan.interleaving
    chosen = "It is MODEL.RNN.SMALL_NETS"
    if not facts.small_net_given:
        chosen = "It is what MODEL.RNN.SMALL_NETS auto becomes beside this NETS"
    seen = map_in_words(facts.light.image_size)
    return wrap(
        f"{chosen}, and sees the image at half its size, {seen}; stride and sees are in pixels of that. Its last map "
        "must be as large as that of NETS."
    )


def extractor_notes(plan: Plan) -> list[str]:
    """What the frames of the two extractors cost, and which frame is whose."""
    facts = plan.interleaving
    if facts is None:
        return []
    rows = [("frame", "parameters that it takes", "MACs")]
    for title, frame in (("heavy", facts.heavy), ("light", facts.light)):
        macs = f"{sum(frame.macs.values()) / 1e6:,.1f} M"
        rows.append((f"{title}: {frame.net} at {map_in_words(frame.image_size)}", f"{frame.parameters:,}", macs))
    least = "at least " if facts.share_is_least else ""
    rows.append((f"mean under POLICY, {least}{_share(facts.heavy_share)} heavy", "", f"{facts.mean_macs / 1e6:,.1f} M"))
    words = "base is the large extractor alone; FREEZE_BASE_EPOCHS holds both."
    notes = [words, _policy_in_words(plan), _training_policy_in_words(plan)]
    return [*table_lines(rows, "lrr"), *(line for note in notes for line in wrap(note))]


def _share(share: float) -> str:
    part = round(1 / share) if share else 0
    return f"1 of {part}" if part > 1 else "all" if part else "none"


def _policy_in_words(plan: Plan) -> str:
    facts = plan.interleaving
    turns = f"{facts.small_net} sees {facts.interval} frame{'s' * (facts.interval != 1)} after each of {plan.nets}'s"
    if not plan.in_use and facts.policy in ("fixed", "adaptive", "async"):
        return (
            f"Inference, POLICY {facts.policy}: without memory every frame is the first of a video, and {plan.nets}'s."
        )
    words = {
        "fixed": f"{turns}, which sees the first of a video.",
        "adaptive": f"{turns} at most, which sees the first of a video and the next whenever the memory has drifted by "
        f"more than ADAPT_THRESHOLD {facts.threshold:g}.",
        "random": f"{plan.nets} sees the first frame of a video and half of the others, by chance.",
        "large": f"{plan.nets} sees every frame.",
        "small": f"{facts.small_net} sees every frame.",
        "async": f"in demo and ObjectDetector every frame is light, and {plan.nets} runs beside them, on the newest "
        f"whenever it is free; in the phases {turns}.",
    }
    return f"Inference, POLICY {facts.policy}: {words[facts.policy]}"


def _training_policy_in_words(plan: Plan) -> str:
    facts = plan.interleaving
    words = {
        "fixed": f"in clips by turns as POLICY fixed, {plan.nets} first in every video; of the stills each sees half, "
        "by chance.",
        "random": "each sees half of the frames, by chance.",
        "large": f"{plan.nets} sees every frame.",
        "small": f"{facts.small_net} sees every frame.",
    }
    return f"Training, TRAIN_POLICY {facts.training_policy}: {words[facts.training_policy]}"


def memory_notes(plan: Plan) -> list[str]:
    """What the estimate of an interleaved detector's training supposes."""
    facts = plan.interleaving
    if facts is None or facts.training_policy in ("large", "small"):
        return []
    mean = {"random": "half of the frames heavy, which is the mean", "fixed": "clips that begin a video"}
    return wrap(f"Of the two extractors the activations are those of {mean[facts.training_policy]}.")


# ----------------------------------------------------------------------------------------------------- stages


def stage_lines(plan: Plan) -> list[str]:
    """What the epochs train on and what learns; nothing where all are alike and on stills."""
    stages = plan.rate.stages
    if len(stages) == 1 and not stages[0].clips:
        return []
    rows = [("epochs", "on", "base", "memory", "steps of an epoch")]
    for stage in stages:
        on = f"stills, {stage.rows} at a time"
        if stage.clips:
            on = f"clips of {stage.frames} frames of {stage.rows} videos"
        memory = "-" if not plan.remembers else "on" if stage.clips else "off"
        base = "held" if stage.base_held else "learns"
        epochs = f"{stage.first}-{stage.last}" if stage.first < stage.last else str(stage.first)
        rows.append((epochs, on, base, memory, f"{stage.steps_per_epoch:,}"))
    return table_lines(rows, "llllr")
