#!/usr/bin/env bash
# GP2 (Romanov et al. 2020): the mixture, to tables 3 and 5, and NYU alone, to table 2.
#
#     recipes/lists /path/to/datasets/splits
#     DATA=/path/to/datasets recipes/geometry_preserving/reproduce.sh
#
# recipes/run says what else it reads, and how it is run on a cluster; with --variants it runs the paper's ablations instead.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "$here/../run" "$@" "$here"/gp2_{mixture,nyu_raw}.yaml
