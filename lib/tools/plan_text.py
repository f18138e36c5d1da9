"""The plan of a configuration as plain text for a terminal of 100 columns."""

import textwrap

from ..modeling.nets.backbone import Backbone
from .plan_facts import LayerFacts, LevelFacts, Memory, Plan, taps_of_layers
from .plan_words import PLAIN, block_meanings, places_in_words, variant_in_words

WIDTH = 100
BAR = 30  # characters of the largest rate


def format_plan(plan: Plan, backbone: Backbone, picture: str = "") -> str:
    """All sections; `picture` is the file of the learning rate's curve."""
    sections = [
        _head(plan), _base(plan, backbone), _entries(plan, backbone), _level_section(plan), _costs(plan), _memory(plan),
        _rate(plan, picture), _findings(plan),
    ]  # fmt: skip
    return "\n\n".join("\n".join(line.rstrip() for line in lines) for lines in sections)


def _head(plan: Plan) -> list[str]:
    classes = f"{plan.num_classes} classes with the background"
    if plan.num_classes_assumed:
        classes += " (assumed: MODEL.NUM_CLASSES is null and will come from the data)"
    height, width = plan.image_size
    first = f"{plan.ssds} on {plan.nets}, images of {height} x {width} pixels (height x width)"
    return [f"Plan of {plan.config}", *_wrap(f"{first}, {classes}.")]


# ------------------------------------------------------------------------------------------------ base network


def _base(plan: Plan, backbone: Backbone) -> list[str]:
    taps = taps_of_layers(plan)
    rows = [("layer", "what it is", "stride", "channels", "map", "sees", "read by")]
    for group in _collapse(plan.layers, set(taps)):
        (first, last), times = group[0], len(group)
        end = group[-1][1]
        what = f"{times} x {_fold(first, last, plan)}" if times > 1 else _fold(first, last, plan)
        names = f"{first}-{end}" if first != end else str(first)
        layer, sees = plan.layers[end], _sides(plan.layers[end].receptive_field)
        if times > 1:
            sees = f"{_sides(plan.layers[last].receptive_field)}-{sees}"
        read = f"<- {taps[end]}" if end in taps else ""
        rows.append((names, what, str(layer.stride), str(layer.channels), _map(layer.map), sees, read))
    lines = [f"BASE NETWORK  {plan.nets}, {len(plan.layers)} layers", *_table(rows, "llrrrrl")]
    lines += _wrap(
        "stride: pixels of the image from one cell of the map to the next. sees: receptive field, the pixels down and "
        "across that a cell can depend on. read by: what FEATURE_LAYER takes from there."
    )
    lines += [line for text in block_meanings([layer.what for layer in plan.layers]) for line in _wrap(f"{text}.")]
    if plan.split_at is not None:
        lines += _wrap(
            f"Two paths with the same weights part behind layer {plan.split_at}: the table is that of the fine one; "
            "the coarse one has twice the stride."
        )
    return lines


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


def _fold(first: int, last: int, plan: Plan) -> str:
    return " + ".join(layer.what for layer in plan.layers[first : last + 1])


# ---------------------------------------------------------------------------------------------- FEATURE_LAYER


def _entries(plan: Plan, backbone: Backbone) -> list[str]:
    variant = variant_in_words(plan.ssds)
    if plan.feature_layer is None:
        given = "is null: the variant chooses its usual levels, listed below"
    elif plan.feature_layer_given:
        given = f"is {_flow(plan.feature_layer)}"
    else:
        given = f"is null, which means the usual levels, here {_flow(plan.feature_layer)}"
    lines = ["WHAT FEATURE_LAYER MAY SAY", *_wrap(f"It {given}."), *_wrap(f"{plan.ssds} reads it as {variant.form}.")]
    last, strides = len(plan.layers) - 1, backbone.last_layers_by_stride()
    names = ", ".join(f"'/{plan.layers[index].stride}' = {index}" for index in strides)
    rows = [
        (f"0 to {last}", f"a layer of the base by its number in the table: {variant.tap}"),
        (f"'/{plan.layers[strides[-1]].stride}'", f"the last layer of that stride: {names}"),
    ]
    if names := getattr(backbone, "modules_of_maps", None):
        rows.append((repr(names[-1]), f"a map by timm's name: {', '.join(names)}"))
    if places := places_in_words(backbone):
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
        lines += _wrap(f"  {name:<{width}}{meaning}", indent=width + 2)
    return lines + (_wrap(f"{variant.remark[0].upper()}{variant.remark[1:]}.") if variant.remark else [])


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
        rows.append((
            str(index), str(level.channels), _map(level.map), _sides(level.stride), _sides(level.receptive_field),
            _sides(level.pitch), str(level.boxes_per_cell), f"{level.num_priors:,}",
        ))  # fmt: skip
    header, rule, *table = _table(rows, "lrrrrrrr")
    lines = [f"LEVELS  {len(plan.levels)}, with {plan.num_priors:,} priors", header, rule]
    for row, level in zip(table, plan.levels, strict=True):
        lines += [row, *_level_details(level, plan.feature_layer is not None)]
    return lines + _wrap("STEPS: pixels from one prior to the next. Priors are width x height in pixels, as used.")


def _level_details(level: LevelFacts, token_known: bool) -> list[str]:
    named = token_known and not isinstance(level.token, (list, tuple))
    token = f"{level.token!r}: " if named else ""
    boxes = ", ".join(f"{_number(w)} x {_number(h)}" for w, h in level.priors)
    return [*_wrap(f"       from {token}{level.source}", indent=12), *_wrap(f"       priors {boxes}", indent=14)]


# ---------------------------------------------------------------------------------------------- cost and memory


def _costs(plan: Plan) -> list[str]:
    parameters, macs = sum(plan.parameters.values()), sum(plan.macs.values())
    rows = [("part", "parameters", "", "MACs", "")]
    for part in dict.fromkeys([*plan.parameters, *plan.macs]):
        mine, work = plan.parameters.get(part, 0), plan.macs.get(part, 0)
        rows.append((part, f"{mine:,}", _share(mine, parameters), f"{work / 1e6:,.1f} M", _share(work, macs)))
    rows.append(("total", f"{parameters:,}", "", f"{macs / 1e6:,.1f} M", ""))
    table = _table(rows, "lrrrr")
    table.insert(-1, table[1])
    note = "MACs: multiply-adds of convolutions for one image, as often as they run, without decoding and NMS."
    return ["COST", *table, *_wrap(f"{note} The parts are the words of TRAINABLE_SCOPE and RESUME_SCOPE.")]


def _memory(plan: Plan) -> list[str]:
    lines = ["MEMORY  estimates from the shapes of the tensors, without the workspaces of the libraries"]
    for title, memory in (("training", plan.training), ("inference", plan.inference)):
        lines += _memory_table(title, memory)
    lines += _wrap(
        "fp32: every number in 4 bytes. bf16 or fp16: mixed precision (TRAIN.AMP, MODEL.PRECISION), in which feature "
        "maps take 2 bytes and weights stay in fp32 beside a copy. Activations are what the forward pass keeps for the "
        "backward pass, in proportion to TRAIN.BATCH_SIZE."
    )
    return lines


def _memory_table(title: str, memory: Memory) -> list[str]:
    height, width = memory.image_size
    batch = f"{memory.images} image{'s' * (memory.images > 1)} of {height} x {width}"
    rows = [(f"{title}, {batch}", "fp32", "bf16 or fp16")]
    rows += [(part, _bytes(size), _bytes(memory.mixed[part])) for part, size in memory.fp32.items() if size]
    rows.append(("together", _bytes(sum(memory.fp32.values())), _bytes(sum(memory.mixed.values()))))
    return _table(rows, "lrr")


# ----------------------------------------------------------------------------------------------- learning rate


def _rate(plan: Plan, picture: str) -> list[str]:
    rate = plan.rate
    images = f"{rate.images:,} images"
    if rate.images_assumed:
        images += " (assumed, since no data is read: give yours with --images)"
    lines = [f"LEARNING RATE  {rate.epochs} epochs of {rate.steps_per_epoch:,} steps", *_wrap(f"For {images}.")]
    top = max(value for _, _, value, _ in rate.points) or 1
    rows = [("epoch", "step", "rate", "", "")]
    for step, epoch, value, what in rate.points:
        rows.append((f"{epoch:.1f}", f"{step:,}", f"{value:.3g}", "#" * round(value / top * BAR), what))
    return lines + _table(rows, "rrrll") + ([f"curve: {picture}"] if picture else [])


# ---------------------------------------------------------------------------------------------------- findings


def _findings(plan: Plan) -> list[str]:
    if not plan.findings:
        return ["FINDINGS  none: everything that was checked fits together"]
    lines = [f"FINDINGS  {len(plan.findings)}"]
    for number, finding in enumerate(plan.findings, start=1):
        lines += _wrap(f"{number:>2}. {finding}", indent=4)
    return lines


# -------------------------------------------------------------------------------------------------------- parts


def _table(rows: list[tuple], align: str) -> list[str]:
    """Lines of a table whose first row is its header; align has l or r for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))]
    lines = [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _wrap(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip


def _map(cells) -> str:
    return f"{cells[0]} x {cells[1]}"


def _sides(values) -> str:
    """Height and width, once where they are equal."""
    return _number(values[0]) if values[0] == values[1] else f"{_number(values[0])} x {_number(values[1])}"


def _number(value: float) -> str:
    return f"{round(value, 1):g}" if value < 1e5 else f"{value:.0f}"


def _share(value: int, total: int) -> str:
    return f"{100 * value / total:.1f} %" if total else ""


def _bytes(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
        size /= 1024
    raise AssertionError
