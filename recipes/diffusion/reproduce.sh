#!/usr/bin/env bash
# MetricGold (Shah 2024) by Marigold's training, and its second stage.
#
#     recipes/lists /path/to/datasets/splits
#     DATA=/path/to/datasets recipes/diffusion/reproduce.sh
#
# recipes/run says what else it reads, and how it is run on a cluster; with --variants it runs the paper's ablations instead.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "$here/../run" "$@" "$here"/{metricgold_sd2,end_to_end}.yaml
