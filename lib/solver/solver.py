"""The Solver runs the phases of a configuration: train, eval, test, visualize."""

import logging
import math
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..config.effective import flatten_config, save_config
from ..config.loader import update_derived
from ..config.stages import stage_of
from ..dataset.dataset_factory import check_num_classes, create_records
from ..layers.normalize import Normalize
from ..modeling.complexity import count_macs
from ..modeling.model_builder import create_criterion, create_model
from ..utils.device import autocast, resolve_precision, select_device
from ..utils.distributed import (
    is_main,
    is_together,
    main_first,
    on_main,
    rank,
    share_weights,
    sum_of_losses,
    world_size,
)
from ..utils.errors import UserError
from ..utils.log import setup_logging
from ..utils.meters import LossMeter, StopWatch
from . import checkpoint as ckpt
from .base_weights import load_base_weights
from .course import tell_course
from .hang_watch import HangWatch
from .model_graph import write_graph
from .optim import freeze_outside_scope, hold_frozen_norms, set_learning_rate
from .run import (
    check_same_run,
    checkpoints_to_test,
    find_first,
    find_run,
    forget_other_clips,
    make_way,
    run_content,
    warn_of_meanings,
)
from .run_lock import locked_run
from .scoring import Scorer
from .stages import check_held_base, create_stage_loaders, enter_stage, epoch_lengths, loader_of, tell_stages
from .step_guard import StepGuard
from .task import DetectionTask, SharedTask, state_for
from .train_state import GivenUp, Stopped, StopRequest, TrainState, saved_note
from .visualize import find_image, run_visualize
from .writer import RunWriter

logger = logging.getLogger(__name__)


def due(epoch: int, every: int, last: int) -> bool:
    """Whether work of every so many epochs falls on this one; it always falls on the last."""
    return epoch == last or (every > 0 and epoch % every == 0)


class Solver:
    """Owns a run: its folder, data, model and logs.  `run()` does what PHASE asks, each phase once, in order."""

    def __init__(self, cfg):
        self.cfg = cfg
        self.exp_dir = Path(cfg.EXP_DIR)
        setup_logging(self.exp_dir)
        self.device = select_device(cfg.DEVICE)
        self.records = {}
        if first := on_main(lambda: find_first(cfg)):
            ckpt.adopt_inputs(cfg, first[1], first[0])
        self.class_names = main_first(self._open_data)
        check_num_classes(cfg, self.class_names)
        update_derived(cfg)
        torch.manual_seed(cfg.SEED)
        self.model = create_model(cfg)
        if first:
            ckpt.match_shapes(self.model, first[1], first[0], cfg)
        self.model.to(self.device, memory_format=torch.channels_last)
        self.num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.normalize = Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS).to(self.device)
        self.writer = RunWriter(cfg.LOG_DIR, self.exp_dir)
        self.watch = HangWatch(cfg.TRAIN.HANG_SECONDS, self.exp_dir)
        self.scorer = Scorer(cfg, self.records, self.class_names, self.normalize, self.device, self.writer)
        logger.info(
            "%s on %s, %d classes, input %dx%d, %d priors, %.2f M parameters, on %s%s",
            cfg.MODEL.SSDS, cfg.MODEL.NETS, cfg.MODEL.NUM_CLASSES, *cfg.MODEL.IMAGE_SIZE, len(self.model.priors),
            self.num_parameters / 1e6, self.device, f", {world_size()} processes" if is_together() else "",
        )  # fmt: skip

    def run(self) -> None:
        """The phases of cfg.PHASE, each once, in order."""
        alone = locked_run(self.exp_dir) if "train" in self.cfg.PHASE and is_main() else nullcontext()
        with alone, self.writer:
            on_main(lambda: save_config(self.cfg, self.exp_dir / "config.yml"))
            for phase in dict.fromkeys(self.cfg.PHASE):
                getattr(self, phase)()

    # ---------------------------------------------------------------------------------------------- train

    def train(self) -> None:
        """Train up to MAX_EPOCHS, from where the run in EXP_DIR stands."""
        cfg, epochs = self.cfg, self.cfg.TRAIN.MAX_EPOCHS
        loaders = create_stage_loaders(cfg, self.records["train"])
        dtype = resolve_precision(cfg.TRAIN.AMP, self.device, training=True)
        learning = freeze_outside_scope(self.model, cfg.TRAIN.TRAINABLE_SCOPE)
        check_held_base(cfg, self.model, learning)
        state = TrainState(cfg, self.model, epoch_lengths(cfg, loaders), dtype == torch.float16, self.device)
        if rank():  # what the network draws shall differ from process to process
            torch.manual_seed(cfg.SEED + rank())
        self._resume(state)
        if self._is_over(state):
            self._tell_end(state)
            return
        tell_stages(cfg, loaders, dtype)
        if state.step == 0 and is_main():
            write_graph(self.writer, self.model, cfg.MODEL.IMAGE_SIZE, self.device)
        task = SharedTask(DetectionTask(self.model, create_criterion(cfg), self.normalize), cfg.TRAIN.SYNC_NORMS)
        self.guard = StepGuard(cfg, state, self.records["train"], dtype)
        with StopRequest() as stop, self._kept(state):
            while not self._is_over(state):
                stage = stage_of(cfg, state.epoch + (not self._map_is_owed(state)))
                enter_stage(self.model, stage, learning)
                task.share()
                if not self._map_is_owed(state):
                    loader = loader_of(stage, loaders)
                    self._train_epoch(task, state, loader, partial(autocast, self.device, dtype), stop)
                save = due(state.epoch, cfg.TRAIN.CHECKPOINTS_EPOCHS, epochs)
                if not stop.agree() and self._map_is_owed(state):
                    if save:  # a run that is killed in a long evaluation does not lose the epoch
                        self._save(state)
                    with suppress(GivenUp):
                        self._track_map(state, stop)
                if stop.agree():
                    self.guard.check_noted()
                    raise Stopped(stop.received, self._save(state), cfg.TRAIN.RESUME)
                if save or self._is_over(state):
                    self._save(state)
        self._tell_end(state)

    @contextmanager
    def _kept(self, state: TrainState):
        """Save what was learnt when a mistake comes up between two steps, as that the images are gone, and say so."""
        try:
            yield
        except UserError as error:
            if not state.step or state.batch % self.cfg.TRAIN.ACCUMULATE or is_together():
                raise
            self.guard.check_noted()
            raise UserError(f"{error}; {saved_note(self._save(state), self.cfg.TRAIN.RESUME)}") from None

    def _is_over(self, state: TrainState) -> bool:
        return not self._map_is_owed(state) and (state.epoch >= self.cfg.TRAIN.MAX_EPOCHS or self._has_stalled(state))

    def _has_stalled(self, state: TrainState) -> bool:
        """Whether the last evaluation found the best mAP too old, by EARLY_STOP_EPOCHS."""
        cfg = self.cfg.TRAIN
        scored = state.epoch // cfg.TRACK_MAP_EVERY * cfg.TRACK_MAP_EVERY
        return bool(cfg.EARLY_STOP_EPOCHS and state.best) and scored - state.best["epoch"] >= cfg.EARLY_STOP_EPOCHS

    def _tell_end(self, state: TrainState) -> None:
        done = f"{state.epoch} of {self.cfg.TRAIN.MAX_EPOCHS} epochs are done"
        if state.epoch < self.cfg.TRAIN.MAX_EPOCHS:
            done += f", and no evaluation after epoch {state.best['epoch']} was better (TRAIN.EARLY_STOP_EPOCHS)"
        logger.info("training is complete: %s", done)

    def _train_epoch(self, task, state: TrainState, loader, context, stop: StopRequest) -> None:
        """The rest of the epoch that `state` stands in; leaves early, between two steps, when asked to stop."""
        cfg = self.cfg.TRAIN
        self.model.train()
        hold_frozen_norms(self.model)
        state.batch = min(state.batch, len(loader))  # epochs may be shorter than when the run stopped
        loader.set_position(state.epoch + 1, state.batch)
        meter, whole, watch, lap = LossMeter(), LossMeter(), StopWatch(self.device), StopWatch(self.device)
        num_batches = len(loader)
        title = f"epoch {state.epoch + 1}/{cfg.MAX_EPOCHS}"
        hidden = None if is_main() else True
        bar = tqdm(total=loader.num_images, desc=title, unit="img", disable=hidden, leave=False)
        with bar, self.watch.watching():
            bar.update(state.batch * loader.num_images // num_batches)
            watch.start()
            lap.start()
            for clip in loader:
                state.recurrent = state_for(clip, state.recurrent)
                self.guard.begin(clip)
                clip = [batch.to(self.device) for batch in clip]
                with_step = (state.batch + 1) % cfg.ACCUMULATE == 0 or state.batch + 1 == num_batches
                losses = self._train_step(task, state, clip, context, with_step)
                state.batch += 1
                meter.add(losses)
                whole.add(losses)
                self.watch.beat()
                num_images = sum(len(batch.images) for batch in clip) * world_size()
                watch.events += num_images
                lap.events += num_images
                bar.update(num_images)
                if with_step and state.step % cfg.LOG_EVERY == 0 or state.batch == num_batches:
                    watch.stop(0)
                    bar.set_postfix(self._log_step(meter.pop(), state, watch.rate), refresh=False)
                    watch = StopWatch(self.device)
                    watch.start()
                if with_step and stop.agree() and state.batch < num_batches:
                    return
                if with_step and state.batch < num_batches and self._iterations_are_due(state.step):
                    self.guard.check_noted()
                    self._save(state)
        state.epoch, state.batch, state.recurrent = state.epoch + 1, 0, None
        state.to_score = self._map_is_due(state.epoch)
        lap.stop(0)
        logger.info(
            "%s: %s, learning rate %.2g, %.1f images/s", title,
            ", ".join(f"{name} {value:.3f}" for name, value in whole.pop().items()),
            state.learning_rate.at(state.step - 1), lap.rate,
        )  # fmt: skip

    def _train_step(self, task, state: TrainState, clip, context, with_step: bool) -> dict:
        """Forward and backward of a clip and, `with_step`, the optimizer step; returns the losses of all processes."""
        rate = state.learning_rate.at(state.step)
        with task.sharing(with_step):
            own, state.recurrent = task(clip, state.recurrent, context)
            losses = sum_of_losses(own)
            self.guard.check_losses(losses, sum(losses.values()), clip, rate)
            # The processes' gradients are averaged, and what is wanted is that of the sum of their losses.
            scale = world_size() / self.cfg.TRAIN.ACCUMULATE
            state.scaler.scale(sum(own.values()) * scale).backward()
        if with_step:
            set_learning_rate(state.optimizer, rate)
            limit = self.cfg.TRAIN.CLIP_NORM or (math.inf if self.guard.on_cpu else 0)  # infinity changes nothing
            if limit:
                state.scaler.unscale_(state.optimizer)
                norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
                self.guard.check_gradient(norm, rate)
            state.scaler.step(state.optimizer)
            state.scaler.update()
            state.optimizer.zero_grad()
            if state.average is not None:
                state.average.update(self.model)
            state.step += 1
        return losses

    def _log_step(self, losses: dict[str, float], state: TrainState, images_per_second: float) -> dict[str, str]:
        """Write the means of the last steps; returns what the progress bar shows."""
        rate = state.learning_rate.at(max(state.step - 1, 0))
        total = sum(losses.values())
        self.guard.check_noted()
        scalars = {f"Train/{name}": value for name, value in losses.items()}
        scalars |= {"Train/loss": total, "Train/lr": rate, "Train/images_per_second": images_per_second}
        scalars["Train/epoch"] = state.learning_rate.lengths.epochs_at(state.step)
        self.writer.scalars(scalars, state.step)
        return {name.removesuffix("_loss"): f"{value:.3f}" for name, value in losses.items()} | {"lr": f"{rate:.2g}"}

    def _iterations_are_due(self, step: int) -> bool:
        every = self.cfg.TRAIN.CHECKPOINTS_ITERATIONS
        return every > 0 and step % every == 0

    def _map_is_owed(self, state: TrainState) -> bool:
        return state.to_score and self.cfg.TRAIN.TRACK_MAP

    def _map_is_due(self, epoch: int) -> bool:
        settings = self.cfg.TRAIN
        return settings.TRACK_MAP and due(epoch, settings.TRACK_MAP_EVERY, settings.MAX_EPOCHS)

    def _track_map(self, state: TrainState, stop: StopRequest) -> None:
        """Score the averaged weights on the evaluation images and keep them if they are the best so far."""

        def between() -> None:
            self.watch.beat()
            stop.give_up()

        with state.averaged_weights(), self.watch.watching():
            share_weights(self.model)  # norms may have seen other images in each process
            scores = self.scorer.score(self.model, "eval", state.step, state.epoch, between)
        mean_ap = on_main(lambda: scores["mAP"])
        state.to_score = False
        if mean_ap > state.best.get("mAP", -1.0):
            state.best = {"mAP": mean_ap, "epoch": state.epoch}
            self._write(state, self.exp_dir / ckpt.BEST)
        logger.info(
            "epoch %d: mAP %.3f on %d images (best %.3f in epoch %d)", state.epoch, mean_ap,
            len(self.records["eval"]), state.best.get("mAP", math.nan), state.best.get("epoch", 0),
        )  # fmt: skip

    def _save(self, state: TrainState) -> Path:
        """Write the numbered checkpoint of the present position and delete the oldest ones."""
        prefix = self.cfg.CHECKPOINTS_PREFIX
        within = f"{state.epoch + 1}_iter_{state.batch}" if state.batch else f"{state.epoch}"
        path = self.exp_dir / f"{prefix}_epoch_{within}.pth"
        self._write(state, path)
        if is_main():
            ckpt.delete_old_checkpoints(self.exp_dir, prefix, self.cfg.TRAIN.CHECKPOINTS_KEPT)
        return path

    def _write(self, state: TrainState, path: Path) -> None:
        """Write what the run is at; each process adds what only it knows."""
        content = run_content(self.cfg, self.class_names, **state.state_dict())
        on_main(lambda: ckpt.save_atomically(content, path))

    def _resume(self, state: TrainState) -> None:
        """Continue the run of EXP_DIR or --resume; else start from RESUME_CHECKPOINT or from fresh weights."""
        cfg, found = self.cfg, on_main(lambda: find_run(self.cfg))
        on_main(lambda: ckpt.delete_partial_files(self.exp_dir))
        if found is None:
            if self.writer.json_path.exists():  # of a run that was killed before its first checkpoint
                self.writer.hide_after(0)
            if cfg.MODEL.PRETRAINED and not self.model.pruned:  # its base comes with the rest
                on_main(lambda: load_base_weights(self.model, cfg))
                share_weights(self.model)
                state.restart_average()
            if cfg.RESUME_CHECKPOINT:
                content = on_main(lambda: ckpt.read_checkpoint(cfg.RESUME_CHECKPOINT))
                report = ckpt.copy_weights(
                    self.model, content, cfg.RESUME_CHECKPOINT, cfg.TRAIN.RESUME_SCOPE, self.class_names
                )
                warn_of_meanings(content, cfg.RESUME_CHECKPOINT, cfg)
                logger.info("new run from the weights of RESUME_CHECKPOINT: %s", report)
                if report.classes:
                    logger.info("%s", report.classes.table())
                state.restart_average()
            else:
                logger.info("new run from fresh weights (seed %d)", cfg.SEED)
            return
        path, content = found
        if not ckpt.is_run_checkpoint(content):
            self._resume_weights_only(state, content, path)
            return
        check_same_run(content, path, cfg, self.class_names)
        state.load_state_dict(content, path)
        forget_other_clips(state, content, cfg)
        self._make_way(state, path)
        self.writer.hide_after(state.step)
        instead = " (RESUME_CHECKPOINT is not read: the run goes before it)" if cfg.RESUME_CHECKPOINT else ""
        logger.info("continuing %s after epoch %d, batch %d%s", path, state.epoch, state.batch, instead)

    def _resume_weights_only(self, state: TrainState, content: dict, path: Path) -> None:
        """Go on from a checkpoint of the reference family, whose files hold weights and an epoch in their name."""
        ckpt.copy_weights(self.model, content, path, "", self.class_names).require_complete()
        ckpt.warn_of_inputs(self.cfg, content, path)
        state.epoch = ckpt.epoch_of(path)
        state.step = state.learning_rate.lengths.total(state.epoch)
        state.restart_average()
        self._make_way(state, path)
        logger.info("continuing %s after epoch %d; it holds weights only, the optimizer starts anew", path, state.epoch)

    def _make_way(self, state: TrainState, path: Path) -> None:
        on_main(lambda: make_way(state, path, self.cfg))
        state.best = on_main(lambda: state.best)

    # ---------------------------------------------------------------------------------------------- eval, test

    def eval(self) -> None:
        """Losses and mAP of the tested weights on the evaluation images."""
        for title, path in on_main(lambda: checkpoints_to_test(self.cfg)):
            position = self.load_for_test(path)
            with self.watch.watching():
                scores = self.scorer.score(self.model, "eval", position["step"], between=self.watch.beat)
            logger.info("%s: %s", title, ", ".join(f"{name} {value:.4g}" for name, value in scores.items()))

    def test(self) -> None:
        """Score the test images: table, mAP, speed, results files and pictures; of several epochs also their course."""
        tested = []
        for title, path in on_main(lambda: checkpoints_to_test(self.cfg)):
            position = self.load_for_test(path)
            logger.info("testing %s (%s) on %d images", path, title, len(self.records["test"]))
            suffix = "" if title in ("last", "best") else "_" + title.replace(" ", "_")
            about = {"checkpoint": str(path), "epoch": position["epoch"], "parameters": self.num_parameters}
            about["macs"] = sum(count_macs(self.model, self.cfg.MODEL.IMAGE_SIZE).values())
            with self.watch.watching():
                scores = self.scorer.score_and_keep(
                    self.model, "test", position["step"], suffix, about, self.watch.beat
                )
            if not is_main():
                continue
            metrics = {"mAP": scores["mAP"], "fps": scores["fps_end_to_end"], "parameters": self.num_parameters}
            self.writer.hparams(flatten_config(self.cfg), metrics | {"MACs": about["macs"]})
            tested.append((position["epoch"], scores))
        if len(tested) > 1:
            tell_course(tested, self.exp_dir, self.writer)

    def load_for_test(self, path: Path) -> dict[str, int]:
        """Fill the model from a checkpoint, completely; returns the epoch and step it stands for, 0 if unknown."""
        content = on_main(lambda: ckpt.read_checkpoint(path))
        if ckpt.is_run_checkpoint(content):
            check_same_run(content, path, self.cfg, self.class_names)
        ckpt.match_shapes(self.model, content, path, self.cfg)
        ckpt.copy_weights(self.model, content, path, "", self.class_names).require_complete()
        ckpt.check_wiring(content, path, self.cfg)
        ckpt.warn_of_inputs(self.cfg, content, path)
        ckpt.switch_memory(self.model, content, path, self.cfg)
        epoch = ckpt.epoch_of(path)
        return content.get("position", {"epoch": epoch, "step": epoch})

    # ---------------------------------------------------------------------------------------------- visualize

    def visualize(self) -> None:
        """Pictures of what the detector is made of and sees: priors, augmentation, feature maps, gradients."""
        _, path = on_main(lambda: checkpoints_to_test(self.cfg)[-1])
        position = self.load_for_test(path)
        if not is_main():
            return
        write_graph(self.writer, self.model, self.cfg.MODEL.IMAGE_SIZE, self.device)
        run_visualize(self.cfg, self.model, self.records["visualize"], self.normalize, self.writer, position["step"])

    # ---------------------------------------------------------------------------------------------- data

    def _open_data(self) -> list[str]:
        """Open the image sets of the phases to run; returns their class names."""
        phases = list(dict.fromkeys(self.cfg.PHASE))
        if not phases:
            raise ValueError("PHASE is empty: nothing to do")
        if "train" in phases and self.cfg.TRAIN.TRACK_MAP:
            phases.append("eval")
        names = ()
        for phase in dict.fromkeys(phases):
            self.records[phase] = create_records(self.cfg, phase, names)
            names = self.records[phase].class_names
        if "visualize" in self.records:  # a mistake is told before the training, not after
            find_image(self.records["visualize"], self.cfg.VISUALIZE.IMAGE)
        return list(names)
