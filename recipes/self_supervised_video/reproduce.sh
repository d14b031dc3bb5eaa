#!/usr/bin/env bash
# Monodepth2 (Godard et al. 2019): video, pairs and both on KITTI, at two sizes, to table 1.
#
#     recipes/lists /path/to/datasets/splits
#     DATA=/path/to/datasets recipes/self_supervised_video/reproduce.sh
#
# recipes/run says what else it reads, and how it is run on a cluster; with --variants it runs the paper's ablations instead.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "$here/../run" "$@" "$here"/{kitti_mono,kitti_stereo,kitti_mono_stereo}_{640x192,1024x320}.yaml
