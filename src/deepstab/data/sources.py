"""From `data.source` to checked video files and a manifest."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

from deepstab.config import DataParams
from deepstab.data import flights, folder, kaggle, material, videos
from deepstab.data.manifest import MANIFEST_NAME, Manifest, Source
from deepstab.models.vgg19 import VGG19_NAME, place_vgg19

log = logging.getLogger(__name__)

_FLIGHTS_WARNING = """\
************************************************************************
  data.source is auto: no Kaggle credentials and no videos in
  {root}: training on GENERATED virtual flights.
  For real video: put {{stable,unstable}}/N.mp4 there, or set up Kaggle.
************************************************************************"""


def resolve_source(params: DataParams) -> Source:
    """What `auto` means here and now: kaggle, folder or flights; other values stand."""
    if params.source != "auto":
        return params.source
    if kaggle.credentials_found():
        return "kaggle"
    if folder.holds_videos(Path(params.kaggle_root)):
        return "folder"
    log.warning(_FLIGHTS_WARNING.format(root=params.kaggle_root))
    return "flights"


def prepare_data(destination: Path, *, params: DataParams, seed: int, vgg_weights: str) -> Manifest:
    """Bring the videos, the manifest and the VGG19 weights to one folder; it appears whole.

    Args:
        destination: replaced; gets {stable,unstable}/N.*, the manifest, and VGG19 weights if any.
        params: the data section.
        seed: of generated data.
        vgg_weights: `loss.vgg_weights`.

    Raises:
        DataError: the source cannot be used; nothing is left at destination then.
    """
    source = resolve_source(params)
    if source == "kaggle":
        kaggle.require_credentials()
    partial = destination.with_name(destination.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    weights = partial.with_name(partial.name + VGG19_NAME)
    try:
        # First: a wrong path should not show after hours of download.
        vgg19_sha256 = place_vgg19(vgg_weights, weights)
        scenes, truths = _bring_videos(source, partial, destination, params=params, seed=seed)
        manifest = folder.check_pairs(
            partial, params=params, source=source, scenes=scenes, truths=truths
        )
        if vgg19_sha256 is not None:
            weights.rename(partial / VGG19_NAME)
        manifest = dataclasses.replace(manifest, vgg19_sha256=vgg19_sha256)
        manifest.save(partial / MANIFEST_NAME)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        weights.unlink(missing_ok=True)
        raise
    for problem in manifest.problems:
        log.warning("pair %s: %s; %s", problem.name, problem.problem, problem.action)
    shutil.rmtree(destination, ignore_errors=True)
    partial.rename(destination)
    return manifest


def _bring_videos(
    source: Source, partial: Path, destination: Path, *, params: DataParams, seed: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Fill a folder with the videos of a source; names -> scenes and truths of generated ones."""
    match source:
        case "kaggle":
            kaggle.download_dataset(
                partial, dataset=params.kaggle_dataset, version=params.kaggle_version
            )
        case "folder":
            folder.copy_videos(Path(params.kaggle_root), partial)
        case "videos":
            found = _folder(params.videos.folder, "video", destination)
            return videos.render_videos(partial, folder=found, params=params.videos, seed=seed)
        case "flights":
            photos = _folder(params.flights.photos, "photos", destination)
            return flights.render_flights(partial, params=params.flights, photos=photos, seed=seed)
    return {}, {}


def _folder(named: str, kind: material.Kind, destination: Path) -> Path:
    """The folder that a parameter names; `material` is fetched to stand beside the destination."""
    if named != material.NAME:
        return Path(named)
    place = destination.with_name(material.NAME)
    return material.fetch_material(place, kind=kind, items=material.read_list())
