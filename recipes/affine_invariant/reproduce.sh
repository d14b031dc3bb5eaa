#!/usr/bin/env bash
# MiDaS (Ranftl et al. 2022): ReDWeb, then five datasets with Pareto-optimal steps, to table 11.
#
#     recipes/lists /path/to/datasets/splits
#     DATA=/path/to/datasets recipes/affine_invariant/reproduce.sh
#
# recipes/run says what else it reads, and how it is run on a cluster; with --variants it runs the paper's ablations instead.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "$here/../run" "$@" "$here"/midas_{redweb,mix5}.yaml
