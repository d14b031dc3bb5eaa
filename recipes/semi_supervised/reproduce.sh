#!/usr/bin/env bash
# Depth Anything (Yang et al. 2024): the teacher, pseudo-labels, three students, and depth in metres.
#
#     recipes/lists /path/to/datasets/splits
#     DATA=/path/to/datasets recipes/semi_supervised/reproduce.sh
#
# recipes/run says what else it reads, and how it is run on a cluster; with --variants it runs the paper's ablations instead.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "$here/../run" "$@" "$here"/{teacher_large,student_large,student_base,student_small,metric_nyu,metric_kitti,metric_v2_hypersim}.yaml
