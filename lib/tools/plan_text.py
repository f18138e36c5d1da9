"""The plan of a configuration as plain text for a terminal of 100 columns."""

from ..modeling.nets.backbone import Backbone
from .plan_facts import LayerFacts, LevelFacts, Plan, taps_of_layers
from .plan_memory import Memory
from .plan_table import bytes_in_words, map_in_words, number_in_words, share_in_words, sides_in_words, table_lines, wrap
from .plan_video_text import cells_section, extractor_notes, memory_notes, small_base_notes, stage_lines
from .plan_words import PLAIN, block_meanings, places_in_words, variant_in_words

BAR = 30  # characters of the largest rate


def format_plan(plan: Plan, backbone: Backbone, picture: str = "") -> str:
    """All sections; `picture` is the file of the learning rate's curve."""
    sections = [
        _head(plan), _base(plan), _small_base(plan), _entries(plan, backbone), _level_section(plan),
        cells_section(plan), _costs(plan), _memory(plan), _rate(plan, picture), _findings(plan),
    ]  # fmt: skip
    return "\n\n".join("\n".join(line.rstrip() for line in lines) for lines in sections if lines)


def _head(plan: Plan) -> list[str]:
    classes = f"{plan.num_classes} classes with the background"
    if plan.num_classes_assumed:
        classes += " (assumed: MODEL.NUM_CLASSES is null and will come from the data)"
    height, width = plan.image_size
    nets = plan.nets if plan.interleaving is None else f"{plan.nets} and {plan.interleaving.small_net}"
    first = f"{plan.ssds} on {nets}, images of {height} x {width} pixels (height x width)"
    return [f"Plan of {plan.config}", *wrap(f"{first}, {classes}.")]


# ------------------------------------------------------------------------------------------------ base network


def _base(plan: Plan) -> list[str]:
    built = f", of which {plan.num_layers} are built" if plan.num_layers < len(plan.layers) else ""
    lines = [f"BASE NETWORK  {plan.nets}, {len(plan.layers)} layers{built}"]
    lines += _layer_table(plan.layers, taps_of_layers(plan), plan.num_layers)
    lines += wrap(
        "stride: pixels of the image from one cell of the map to the next. sees: receptive field, the pixels down and "
        "across that a cell can depend on. read by: what FEATURE_LAYER takes from there."
    )
    lines += _meanings(plan.layers)
    if plan.split_at is not None:
        lines += wrap(
            f"Two paths with the same weights part behind layer {plan.split_at}: the table is that of the fine one; "
            "the coarse one has twice the stride."
        )
    return lines


def _small_base(plan: Plan) -> list[str]:
    """The small extractor of an interleaved detector."""
    if plan.interleaving is None:
        return []
    layers = plan.interleaving.small_layers
    lines = [f"SMALL NETWORK  {plan.interleaving.small_net}, {len(layers)} layers"]
    lines += _layer_table(layers, {len(layers) - 1: "level 0"}, len(layers))
    return lines + small_base_notes(plan) + _meanings(layers, known=plan.layers)


def _meanings(layers: list[LayerFacts], known: list[LayerFacts] = ()) -> list[str]:
    """What the names of blocks mean that are not among those of `known`."""
    told = block_meanings([layer.what for layer in known])
    texts = block_meanings([layer.what for layer in layers])
    return [line for text in texts if text not in told for line in wrap(f"{text}.")]


def _layer_table(layers: list[LayerFacts], taps: dict[int, str], num_built: int) -> list[str]:
    """`taps` has what reads a layer; behind `num_built` layers nothing is built."""
    rows = [("layer", "what it is", "stride", "channels", "map", "sees", "read by")]
    for group in _collapse(layers, {*taps, num_built - 1}):
        (first, last), times, end = group[0], len(group), group[-1][1]
        what = " + ".join(layer.what for layer in layers[first : last + 1])
        names = f"{first}-{end}" if first != end else str(first)
        layer, sees = layers[end], sides_in_words(layers[end].receptive_field)
        if times > 1:
            what, sees = f"{times} x {what}", f"{sides_in_words(layers[last].receptive_field)}-{sees}"
        read = f"<- {taps[end]}" if end in taps else "not built" if end >= num_built else ""
        rows.append((names, what, str(layer.stride), str(layer.channels), map_in_words(layer.map), sees, read))
    return table_lines(rows, "llrrrrl")


def _collapse(layers: list[LayerFacts], taps: set[int]) -> list[list[tuple[int, int]]]:
    """Runs of like steps; a step is (first, last layer), a layer with the norms and activations behind it.  A layer
    that is tapped ends its step and its run."""
    steps: list[tuple[int, int]] = []
    for index, layer in enumerate(layers):
        if steps and layer.what in PLAIN.values() and index - 1 not in taps:
            steps[-1] = (steps[-1][0], index)
        else:
            steps.append((index, index))
    runs: list[list[tuple[int, int]]] = []
    for step in steps:
        if runs and runs[-1][-1][1] not in taps and _kind(layers, runs[-1][-1]) == _kind(layers, step):
            runs[-1].append(step)
        else:
            runs.append([step])
    return runs


def _kind(layers: list[LayerFacts], step: tuple[int, int]) -> list[tuple]:
    inside = layers[step[0] : step[1] + 1]
    return [(layer.what, layer.stride, layer.channels, layer.map) for layer in inside]


# ---------------------------------------------------------------------------------------------- FEATURE_LAYER


def _entries(plan: Plan, backbone: Backbone) -> list[str]:
    variant = variant_in_words(plan.ssds)
    if plan.feature_layer is None:
        given = "is null: the variant chooses its usual levels, listed below"
    elif plan.feature_layer_given:
        given = f"is {_flow(plan.feature_layer)}"
    else:
        given = f"is null, which means the usual levels, here {_flow(plan.feature_layer)}"
    lines = ["WHAT FEATURE_LAYER MAY SAY", *wrap(f"It {given}."), *wrap(f"{plan.ssds} reads it as {variant.form}.")]
    last_of = {layer.stride: layer.index for layer in plan.layers}
    names = ", ".join(f"'/{stride}' = {index}" for stride, index in last_of.items())
    rows = [
        (f"0 to {len(plan.layers) - 1}", f"a layer of the base by its number in the table: {variant.tap}"),
        (f"'/{max(last_of)}'", f"the last layer of that stride: {names}"),
    ]
    if names := getattr(backbone, "modules_of_maps", None):
        rows.append((repr(names[-1]), f"a map by timm's name: {', '.join(names)}"))
    if variant.inner_taps and (places := places_in_words(backbone)):
        index, parts = places
        listed = ", ".join(f"{index}.{place} {part}" for place, part in enumerate(parts))
        example = f"'{index}.{min(2, len(parts) - 1)}'"
        rows.append((example, f"a place inside a layer, for example in layer {index}: {listed}"))
    rows += [(_token_name(token), meaning) for token, meaning in variant.tokens.items()]
    rows.append(
        ("channels", "those of the layer, or null for them; of other entries any number (of an extra level also "
         "[inside, channels])")
    )  # fmt: skip
    width = max(len(name) for name, _ in rows) + 2
    for name, meaning in rows:
        lines += wrap(f"  {name:<{width}}{meaning}", indent=width + 2)
    return lines + (wrap(f"{variant.remark[0].upper()}{variant.remark[1:]}.") if variant.remark else [])


def _token_name(token: str) -> str:
    return token if token.startswith("pyramid ") else repr(token)


def _flow(value) -> str:
    """A nested list as YAML writes it on one line."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str):
        return value if value.isalpha() else repr(value)
    return "null" if value is None else str(value)


# ----------------------------------------------------------------------------------------------------- levels


def _level_section(plan: Plan) -> list[str]:
    rows = [("level", "channels", "map", "stride", "sees", "STEPS", "boxes/cell", "priors")]
    for index, level in enumerate(plan.levels):
        sides = map(sides_in_words, (level.stride, level.receptive_field, level.pitch))
        counts = str(level.boxes_per_cell), f"{level.num_priors:,}"
        rows.append((str(index), str(level.channels), map_in_words(level.map), *sides, *counts))
    header, rule, *table = table_lines(rows, "lrrrrrrr")
    lines = [f"LEVELS  {len(plan.levels)}, with {plan.num_priors:,} priors", header, rule]
    for row, level in zip(table, plan.levels, strict=True):
        lines += [row, *_level_details(level, plan.feature_layer is not None)]
    return lines + wrap("STEPS: pixels from one prior to the next. Priors are width x height in pixels, as used.")


def _level_details(level: LevelFacts, token_known: bool) -> list[str]:
    named = token_known and not isinstance(level.token, (list, tuple))
    token = f"{level.token!r}: " if named else ""
    boxes = ", ".join(f"{number_in_words(w)} x {number_in_words(h)}" for w, h in level.priors)
    return [*wrap(f"       from {token}{level.source}", indent=12), *wrap(f"       priors {boxes}", indent=14)]


# ---------------------------------------------------------------------------------------------- cost and memory


def _costs(plan: Plan) -> list[str]:
    frames = {"MACs": plan.macs}
    if plan.interleaving is not None:
        frames = {"heavy frame": plan.macs, "light frame": plan.interleaving.light.macs}
    rows = [("part", "parameters", "", *(word for name in frames for word in (name, "")))]
    for part in dict.fromkeys([*plan.parameters, *(part for macs in frames.values() for part in macs)]):
        row = [part, *_part_of_total(plan.parameters, part, "{:,}", 1)]
        for macs in frames.values():
            row += _part_of_total(macs, part, "{:,.1f} M", 1e6)
        rows.append(tuple(row))
    sums = [word for macs in frames.values() for word in (f"{sum(macs.values()) / 1e6:,.1f} M", "")]
    rows.append(("total", f"{sum(plan.parameters.values()):,}", "", *sums))
    table = table_lines(rows, "l" + "r" * (len(rows[0]) - 1))
    table.insert(-1, table[1])
    note = "MACs: multiply-adds of convolutions for one image, as often as they run, without decoding and NMS."
    lines = ["COST", *table, *wrap(f"{note} The parts are the words of TRAINABLE_SCOPE and RESUME_SCOPE.")]
    return lines + extractor_notes(plan)


def _part_of_total(counts: dict[str, int], part: str, form: str, unit: float) -> list[str]:
    """[the part of a sum, its share in it]."""
    mine = counts.get(part, 0)
    value = mine / unit if unit > 1 else mine
    return [form.format(value), share_in_words(mine, sum(counts.values()))] if mine else ["-", ""]


def _memory(plan: Plan) -> list[str]:
    lines = ["MEMORY  estimates from the shapes of the tensors, without the workspaces of the libraries"]
    for title, memory in (("training", plan.training), ("training", plan.clips), ("inference", plan.inference)):
        lines += _memory_table(title, memory) if memory else []
    lines += wrap(
        "fp32: every number in 4 bytes. bf16 or fp16: mixed precision (TRAIN.AMP, MODEL.PRECISION), in which feature "
        "maps take 2 bytes and weights stay in fp32 beside a copy. Activations are what the forward pass keeps for the "
        f"backward pass, in proportion to {' and '.join(_batch_keys(plan))}."
    )
    return lines + memory_notes(plan)


def _batch_keys(plan: Plan) -> list[str]:
    """The keys that say how many images are trained on at a time."""
    keys = {"TRAIN.BATCH_SIZE": plan.training, "MODEL.RNN.BACKPROP_STEPS times BATCH_SIZE": plan.clips}
    return [key for key, memory in keys.items() if memory]


def _memory_table(title: str, memory: Memory) -> list[str]:
    height, width = memory.image_size
    batch = f"{memory.images} image{'s' * (memory.images > 1)} of {height} x {width}"
    if memory.frames > 1:
        batch = f"clips of {memory.frames} frames of {memory.images // memory.frames} videos, {height} x {width}"
    rows = [(f"{title}, {batch}", "fp32", "bf16 or fp16")]
    rows += [
        (part, bytes_in_words(size), bytes_in_words(memory.mixed[part])) for part, size in memory.fp32.items() if size
    ]
    rows.append(("together", bytes_in_words(sum(memory.fp32.values())), bytes_in_words(sum(memory.mixed.values()))))
    return table_lines(rows, "lrr")


# ----------------------------------------------------------------------------------------------- learning rate


def _rate(plan: Plan, picture: str) -> list[str]:
    rate = plan.rate
    lines = ["LEARNING RATE  " + _lengths_in_words(plan), *wrap(_data_in_words(plan)), *stage_lines(plan)]
    top = max(value for _, _, value, _ in rate.points) or 1
    rows = [("epoch", "step", "rate", "", "")]
    for step, epoch, value, what in rate.points:
        rows.append((f"{epoch:.1f}", f"{step:,}", f"{value:.3g}", "#" * round(value / top * BAR), what))
    return lines + table_lines(rows, "rrrll") + ([f"curve: {picture}"] if picture else [])


def _lengths_in_words(plan: Plan) -> str:
    rate, steps = plan.rate, {}
    for stage in plan.rate.stages:
        key = (stage.clips, stage.steps_per_epoch)
        steps[key] = steps.get(key, 0) + stage.last - stage.first + 1
    if len(steps) == 1:
        return f"{rate.epochs} epochs of {rate.steps_per_epoch:,} steps"
    return f"{rate.epochs} epochs: " + ", ".join(f"{number} of {count:,} steps" for (_, count), number in steps.items())


def _data_in_words(plan: Plan) -> str:
    rate, clips = plan.rate, plan.clips is not None
    images = f"{rate.images:,} {'frames' if clips else 'images'}"
    if rate.images_assumed:
        images += " (assumed, since no data is read: give yours with --images)"
    if not clips:
        return f"For {images}."
    if rate.videos:
        return f"For {images} in {rate.videos:,} videos, of each of which clips show {plan.frames_in_video} at most."
    return (
        f"For {images}, taking it that no video has more than the {plan.frames_in_video} of MODEL.RNN.FRAMES_IN_VIDEO, "
        "since clips show no more: give the number of videos with --videos."
    )


# ---------------------------------------------------------------------------------------------------- findings


def _findings(plan: Plan) -> list[str]:
    if not plan.findings:
        return ["FINDINGS  none: everything that was checked fits together"]
    lines = [f"FINDINGS  {len(plan.findings)}"]
    for number, finding in enumerate(plan.findings, start=1):
        lines += wrap(f"{number:>2}. {finding}", indent=4)
    return lines
