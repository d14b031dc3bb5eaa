"""Figures and numbers of images of the papers' tables, written down a second time, by tables as they are printed.

A slip of one digit in either copy fails here. The columns stand in the order of the papers; per cent are per cent.
"""

import pytest

from depthkit.convert.catalogue import find
from depthkit.evaluation import PROTOCOLS, TABLES, find_table
from depthkit.evaluation.protocols.benchmark_data import TEST_DATA

PERCENT = {"whdr", "delta1_error"}

MIDAS = """
MiDaS v2 (MIX 5, Pareto)              12.46  .129   .327   23.90  9.55  14.29
MiDaS v2 (MIX 5, ResNet-50)           12.48  .155   .330   21.81 15.73  17.00
Xian et al. 2018 (ReDWeb)             14.59  .186   .422   34.08 27.00  25.02
Wang et al. 2019 (WSVD)               19.09  .205   .390   31.92 29.57  20.18
Li & Snavely 2018 (MegaDepth)         23.15  .181   .385   36.29 27.52  29.54
Li et al. 2019 (Mannequin Challenge)  26.52  .183   .405   47.94 18.57  17.71
Fu et al. 2018 (KITTI)                30.39  .216   .432    7.13 40.61  40.13
Godard et al. 2019 (KITTI)            29.67  .189   .406    5.53 33.29  36.03
MiDaS v2.1 large 384                  12.95  .1155  .3285  16.08  8.71  12.51
MiDaS v2.1 small 256                  13.44  .1344  .3370  29.27 13.43  14.53
MiDaS v3.0 DPT-H 384                  11.06  .0934  .2741  11.56  8.69  10.89
MiDaS v3.0 DPT-L 384                  10.82  .0888  .2697   8.46  8.32   9.97
MiDaS v3.1 BEiT-L-512 at 384          12.45  .0681  .2176   6.28  2.16   6.13
"""
MIDAS_MIXTURES = """
ReDWeb                  14.59  .151  .349  27.95 18.74 21.69
ReDWeb, then DIML       20.08  .148  .364  48.35 12.68 17.48
ReDWeb, then movies     18.39  .175  .403  25.12 20.65 22.44
ReDWeb, then MegaDepth  19.18  .145  .383  34.73 19.05 32.96
ReDWeb, then WSVD       19.31  .196  .359  37.59 24.72 20.99
MIX 1, naive            13.00  .136  .362  22.91 10.98 14.53
MIX 2, naive            13.62  .138  .338  25.39 11.10 13.94
MIX 3, naive            12.62  .135  .332  24.06 10.54 15.39
MIX 4, naive            12.88  .134  .331  24.78 11.46 14.00
MIX 5, naive            12.79  .132  .324  25.41 11.52 13.62
MIX 1, Pareto           13.22  .140  .376  24.26 10.48 14.50
MIX 2, Pareto           12.54  .138  .346  23.05 10.21 14.76
MIX 3, Pareto           12.29  .133  .331  24.68  9.78 14.66
MIX 4, Pareto           12.35  .130  .343  23.13 10.61 13.41
MIX 5, Pareto           12.27  .129  .327  23.90  9.55 14.29
"""
GP2_UTS = """
Li & Snavely 2018        34.39 33.11  .276  .490  24.55
Mannequin Challenge      23.42 22.39  .249  .431  26.52
Tiefenrausch             32.8  35.4   .314  .497  25.54
MN-LRN                   14.64 15.13  .191  .360  15.02
Lite0-LRN                14.15 14.41  .177  .354  14.59
B0-LRN                   13.84 15.95  .168  .330  13.15
B1-LRN                   12.80 15.03  .179  .315  12.71
B2-LRN                   13.04 15.36  .168  .304  13.06
B3-LRN                   12.35 14.38  .176  .343  12.95
B4-LRN                   11.92 13.55  .164  .346  12.81
B5-LRN                   10.64 13.05  .154  .328  12.56
"""
GP2_UTS_ALONE = """
MN-LRN                   14.64 15.13  .191  .360  15.02
MN-LRN, UTS data only    15.38 17.78  .193  .432  21.49
Lite0-LRN                14.15 14.41  .177  .354  14.59
Lite0-LRN, UTS data only  14.15 16.99  .191  .428  19.70
"""
GP2_UTSS = """
MiDaS v2   9.55 14.29  .167  .327  12.46
MN-LRN    10.97 14.22  .177  .292  15.02
B5-LRN     7.40  9.86  .145  .253  12.56
"""
MONODEPTH2 = """
Zhou et al. 2017                    .183 1.595  6.709  .270  .734  .902  .959
Yang et al. 2018                    .182 1.481  6.501  .267  .725  .906  .963
Mahjourian et al. 2018              .163 1.240  6.220  .250  .762  .916  .968
GeoNet                              .149 1.060  5.567  .226  .796  .935  .975
DDVO                                .151 1.257  5.583  .228  .810  .936  .974
DF-Net                              .150 1.124  5.507  .223  .806  .933  .973
Ranjan et al. 2019                  .148 1.149  5.464  .226  .815  .935  .973
EPC++ M                             .141 1.029  5.350  .216  .816  .941  .976
Struct2depth M                      .141 1.026  5.291  .215  .816  .945  .979
M without ImageNet                  .132 1.044  5.142  .210  .845  .948  .977
M                                   .115  .903  4.863  .193  .877  .959  .981
Garg et al. 2016                    .152 1.226  5.849  .246  .784  .921  .967
Monodepth, ResNet-50                .133 1.142  5.533  .230  .830  .936  .970
StrAT                               .128 1.019  5.403  .227  .827  .935  .971
3Net, ResNet-50                     .129  .996  5.281  .223  .831  .939  .974
3Net, VGG                           .119 1.201  5.888  .208  .844  .941  .978
S without ImageNet                  .130 1.144  5.485  .232  .831  .932  .968
S                                   .109  .873  4.960  .209  .864  .948  .975
EPC++ MS                            .128  .935  5.011  .209  .831  .945  .979
MS without ImageNet                 .127 1.031  5.266  .221  .836  .943  .974
MS                                  .106  .818  4.750  .196  .874  .957  .979
Eigen, trained on depth             .203 1.548  6.307  .282  .702  .890  .890
Liu, trained on depth               .201 1.584  6.471  .273  .680  .898  .967
AdaDepth, with depth                .167 1.257  5.578  .237  .771  .922  .971
Kuznietsov, with depth and stereo   .113  .741  4.621  .189  .862  .960  .986
DVSO, with depth and stereo         .097  .734  4.442  .187  .888  .958  .980
SVSM FT, with depth and stereo      .094  .626  4.252  .177  .891  .965  .984
Guo, with depth and stereo          .096  .641  4.095  .168  .892  .967  .986
DORN, trained on depth              .072  .307  2.727  .120  .932  .984  .994
Zhan, with depth, video and stereo  .135 1.132  5.585  .229  .820  .933  .971
"""
MONODEPTH2_LARGE = """
M                               .115  .882  4.701  .190  .879  .961  .982
S                               .107  .849  4.764  .201  .874  .953  .977
MS                              .106  .806  4.630  .193  .876  .958  .980
SuperDepth + flip (1024x382)    .112  .875  4.958  .207  .852  .947  .977
"""
MONODEPTH2_STEPS = """
M, baseline                           .140 1.610  5.512  .223  .852  .946  .973
M, baseline + minimum reprojection    .122 1.081  5.116  .199  .866  .957  .980
M, baseline + automask                .124  .936  5.010  .206  .858  .952  .977
M, baseline + full-resolution scales  .124 1.170  5.249  .203  .865  .953  .978
M without minimum reprojection        .117  .878  4.846  .196  .870  .957  .980
M without automask                    .120 1.097  5.074  .197  .872  .956  .979
M without full-resolution scales      .117  .866  4.864  .196  .871  .957  .981
M with a predicted mask               .123 1.177  5.210  .200  .869  .955  .978
M                                     .115  .903  4.863  .193  .877  .959  .981
M without ImageNet, baseline          .150 1.585  5.671  .234  .827  .938  .971
M without ImageNet                    .132 1.044  5.142  .210  .845  .948  .977
M, full Eigen split, baseline         .146 1.876  5.666  .230  .848  .945  .972
M, full Eigen split                   .116  .918  4.872  .193  .874  .959  .981
"""
MONODEPTH2_ABLATION = """
M, baseline                                  .140 1.610  5.512  .223  .852  .946  .973
M without minimum reprojection               .117  .878  4.846  .196  .870  .957  .980
M without automask                           .120 1.097  5.074  .197  .872  .956  .979
M without full-resolution scales             .117  .866  4.864  .196  .871  .957  .981
M without SSIM                               .118  .853  4.824  .198  .868  .956  .980
M with a predicted mask                      .123 1.177  5.210  .200  .869  .955  .978
M                                            .115  .903  4.863  .193  .877  .959  .981
M without ImageNet, baseline                 .150 1.585  5.671  .234  .827  .938  .971
M without ImageNet or automask               .138 1.197  5.369  .215  .842  .945  .975
M without ImageNet or minimum reprojection   .133 1.021  5.219  .214  .841  .945  .976
M without ImageNet or full-resolution scales  .131 1.030  5.206  .210  .846  .948  .978
M without ImageNet                           .132 1.044  5.142  .210  .845  .948  .977
M without ImageNet, ResNet-50                .131 1.023  5.064  .206  .849  .951  .979
M, ResNet-50                                 .110  .831  4.642  .187  .883  .962  .982
"""
MONODEPTH2_POSES = """
M, PoseCNN                                         .138 1.122  5.308  .209  .840  .950  .978
M, PoseCNN, 3 frames                               .148 1.211  5.595  .219  .815  .942  .976
M, shared pose encoder                             .125  .986  5.070  .201  .857  .954  .979
M, shared pose encoder, 3 frames                   .123 1.031  5.052  .199  .863  .954  .979
M                                                  .115  .903  4.863  .193  .877  .959  .981
M, own pose encoder, 3 frames                      .115  .902  4.847  .193  .877  .960  .981
M without ImageNet, PoseCNN                        .147 1.164  5.445  .221  .818  .940  .974
M without ImageNet, PoseCNN, 3 frames              .147 1.117  5.403  .222  .815  .940  .976
M without ImageNet, shared pose encoder            .149 1.153  5.567  .229  .807  .934  .972
M without ImageNet, shared pose encoder, 3 frames  .145 1.159  5.482  .224  .818  .937  .973
M without ImageNet                                 .132 1.044  5.142  .210  .845  .948  .977
M without ImageNet, own pose encoder, 3 frames     .132 1.017  5.169  .211  .842  .947  .977
"""
"""Of M the paper prints a squared error of .919 here, and .903 in its other tables."""
DEPTH_ANYTHING = """
MiDaS v3.1 BEiT-L  .127 .850  .048 .980  .587 .699  .251 .766  .139 .867  .075 .942
Depth Anything S   .080 .936  .053 .972  .464 .739  .247 .768  .127 .885  .076 .939
Depth Anything B   .080 .939  .046 .979  .432 .756  .232 .786  .126 .884  .069 .946
Depth Anything L   .076 .947  .043 .981  .458 .760  .230 .789  .127 .882  .066 .952
"""
DEPTH_ANYTHING_STEPS = """
L, labelled images only           .085 .053 .492 .245 .134 .070
L, unlabelled images unperturbed  .085 .054 .481 .242 .138 .073
L, unlabelled images perturbed    .081 .048 .469 .235 .134 .068
Depth Anything L                  .076 .043 .458 .230 .127 .066
"""
DEPTH_ANYTHING_MARGINS = """
S, margin 1.00    .085 .055 .523 .250 .134 .079
Depth Anything S  .080 .053 .464 .247 .127 .076
S, margin 0.70    .079 .054 .482 .248 .127 .077
"""
DEPTH_ANYTHING_FEATURES = """
S, no feature alignment                  .083 .055 .478 .249 .133 .080
Depth Anything S                         .080 .053 .464 .247 .127 .076
S, feature alignment on labelled images  .084 .054 .472 .252 .133 .081
"""
DEPTH_ANYTHING_ENCODERS = """
encoder of MiDaS v3.1  .077 .951  .054 .971
encoder of DINOv2      .066 .973  .058 .971
Depth Anything L       .056 .984  .046 .982
"""
METRIC_NYU = """
ZoeDepth (reproduced by Yang et al.)  .951 .994  .999  .077 .282 .033
Depth Anything L                      .984 .998 1.000  .056 .206 .024
"""
METRIC_KITTI = """
ZoeDepth (reproduced by Yang et al.)  .971 .996  .999  .054 2.281 .082
Depth Anything L                      .982 .998 1.000  .046 1.896 .069
"""
METRIC_UNSEEN = """
ZoeDepth (reproduced by Yang et al.)  .520 .545  .169 .656  .407 .302  .106 .844  .814 .237
Depth Anything L                      .500 .660  .150 .714  .363 .361  .085 .913  .794 .288
"""
SERVER = """
DORN, trained on depth   11.77  2.23  .0878 12.98
DABC, trained on depth   14.49  4.08  .1272 15.53
APMoE, trained on depth  14.74  3.88  .1174 15.63
CSWS, trained on depth   14.85  3.48  .1184 16.38
DHGRL, trained on depth  15.47  4.04  .1252 15.72
Monodepth                22.02 20.58  .1779 21.84
M                        15.57  4.52  .1298 16.70
MS                       15.07  4.16  .1164 15.27
MS, ResNet-50            14.41  3.67  .1122 14.73
"""
TABLE_OF = {
    "midas_10": MIDAS,
    "midas_11": MIDAS,
    "midas_4": "\n".join(MIDAS_MIXTURES.splitlines()[:6]),
    "midas_7": "\n".join(line for line in MIDAS_MIXTURES.splitlines() if "Pareto" not in line and "then" not in line),
    "midas_9": "\n".join(line for line in MIDAS_MIXTURES.splitlines() if "naive" not in line and "then" not in line),
    "gp2_3": GP2_UTS,
    "gp2_4": GP2_UTS_ALONE,
    "gp2_5": GP2_UTSS,
    "monodepth2_1": MONODEPTH2,
    "monodepth2_1_1024": MONODEPTH2_LARGE,
    "monodepth2_2": MONODEPTH2_STEPS,
    "monodepth2_6": MONODEPTH2_ABLATION,
    "monodepth2_9": SERVER,
    "monodepth2_12": MONODEPTH2_POSES,
    "depth_anything_2": DEPTH_ANYTHING,
    "depth_anything_3": METRIC_NYU,
    "depth_anything_4": METRIC_KITTI,
    "depth_anything_5": METRIC_UNSEEN,
    "depth_anything_9": DEPTH_ANYTHING_STEPS,
    "depth_anything_10": "\n".join(line for line in DEPTH_ANYTHING_ENCODERS.splitlines() if "DINOv2" not in line),
    "depth_anything_11": "\n".join(line for line in DEPTH_ANYTHING_ENCODERS.splitlines() if "MiDaS" not in line),
    "depth_anything_12": DEPTH_ANYTHING_MARGINS,
    "depth_anything_13": DEPTH_ANYTHING_FEATURES,
}
WHOLE = {
    "midas_4", "midas_7", "midas_9", "gp2_3", "gp2_4", "gp2_5", "depth_anything_2", "depth_anything_5", "depth_anything_9",
    "depth_anything_10", "depth_anything_11", "depth_anything_12", "depth_anything_13", "monodepth2_1_1024",
    "monodepth2_2", "monodepth2_6", "monodepth2_9", "monodepth2_12",
}  # fmt: skip
"""Tables of which every row is above."""

OTHERS = {  # by row: figures from the left of what the table prints
    "gp2_2": {
        "MN-LRN trained on NYU, L1 pairwise": (0.0927, 0.0916, 0.0388),
        "MN-LRN trained on NYU, L2 pairwise": (0.0997, 0.0947, 0.0402),
        "MN-LRN trained on NYU, L1 pointwise": (0.0965, 0.0936, 0.0397),
        "MN-LRN trained on NYU, L1 pointwise absolute": (0.1036, 0.0991, 0.0419),
        "MN-LRN trained on NYU, L2 pointwise absolute": (0.1137, 0.1043, 0.0446),
    },
    "monodepth2_1": {
        "Klodt, with depth and video": (0.166, 1.490, 5.998, None, 0.778, 0.919, 0.966),
        "LEGO": (0.162, 1.352, 6.276, 0.252), "UnDeepVO": (0.183, 1.730, 6.57, 0.268),
    },
    "monodepth2_3": {"M": (0.322, 3.589, 7.417, 0.163), "MS": (0.374, 3.792, 8.238, 0.201)},
    "monodepth2_7": {
        "M": (0.090, 0.545, 3.942, 0.137, 0.914, 0.983, 0.995),
        "S": (0.085, 0.537, 3.868, 0.139, 0.912, 0.979, 0.993),
        "MS": (0.080, 0.466, 3.681, 0.127, 0.926, 0.985, 0.995),
        "Zhan, with depth, video and stereo": (0.130, 1.520, 5.184, 0.205, 0.859, 0.955, 0.981),
    },
    "monodepth2_8": {"M": (0.109, 0.623, 4.136, 0.154, 0.873, 0.977, 0.994)},
    "monodepth2_10": {
        "M + flip": (0.112, 0.851, 4.754), "S + flip": (0.108, 0.842, 4.891), "MS + flip": (0.104, 0.786, 4.687),
    },
    "monodepth2_10_1024": {"S + flip": (0.105, 0.822, 4.692)},
    "monodepth2_11_416": {"M": (0.128, 1.087, 5.171), "S": (0.118,), "MS": (0.118,)},
    "zoedepth_1": {"NeWCRFs": (0.922, 0.992, 0.998, 0.095, 0.334, 0.041), "ZoeD-M12-N": (0.955, 0.995, 0.999, 0.075, 0.270)},
    "zoedepth_3": {"NeWCRFs": (0.798, 0.151, 0.424, 0.548, 0.206, 0.861), "ZoeD-M12-NK": (0.856, 0.123, 0.356, 0.615, 0.186)},
    "zoedepth_4": {"NeWCRFs": (0.829, 0.117, 5.691, 0.874, 0.119, 6.183, 0.010, 1.918, 6.283, 0.176, 0.854, 9.228)},
    "marigold_1": {
        "Marigold, 50 steps, ensemble of 10": (0.055, 0.964, 0.099, 0.916, 0.065, 0.960, 0.064, 0.951, 0.308, 0.773),
        **{row: (first, None, kitti, None, eth3d, None, scannet, None, diode, None)
           for row, first, kitti, eth3d, scannet, diode in (
               ("Stable Diffusion + E2E fine-tuning", 0.054, 0.096, 0.064, 0.058, 0.303),
               ("Marigold + E2E fine-tuning", 0.052, 0.096, 0.062, 0.058, 0.302))},
    },
    "depth_anything_6": {  # the mean of the errors and of the shares is printed beside
        "L, BlendedMVS alone": (0.210, 0.844), "L, DIML alone": (0.226, 0.837), "L, HRWSI alone": (0.200, 0.846),
        "L, IRS alone": (0.215, 0.840), "L, MegaDepth alone": (0.274, 0.780), "L, TartanAir alone": (0.222, 0.841),
        "L, labelled images only": (0.180, 0.874),
    },
}  # fmt: skip


def rows_of(text):
    """Names and numbers of lines; a name ends where two spaces begin."""
    for line in filter(str.strip, text.splitlines()):
        name, _, figures = line.partition("  ")
        yield name, [float(word) for word in figures.split()]


@pytest.mark.parametrize("name", TABLE_OF)
def test_figures_are_those_of_a_second_transcription(name):
    table, written = find_table(name), dict(rows_of(TABLE_OF[name]))
    assert written.keys() <= table.figures.keys()
    if name in WHOLE:
        assert written.keys() == table.figures.keys()
    for row, figures in written.items():
        for column, printed, found in zip(table.columns, figures, table.figures[row], strict=False):
            unit = 100 if column.metric in PERCENT else 1
            assert found * unit == pytest.approx(printed, abs=1e-9), (row, column.label)
        assert len(figures) == len(table.columns)


@pytest.mark.parametrize("name", OTHERS)
def test_further_figures_are_those_of_a_second_transcription(name):
    table = find_table(name)
    for row, figures in OTHERS[name].items():
        found = table.figures[row]
        if name == "depth_anything_6":
            found = [sum(found[k::2]) / 6 for k in (0, 1)]
        for printed, value in zip(figures, found, strict=False):
            assert printed is None or value == pytest.approx(printed, abs=6e-4 if name == "depth_anything_6" else 1e-9), row


def test_table_1_of_monodepth2_is_whole():
    rows = find_table("monodepth2_1").figures.keys()
    assert rows == {name for name, _ in rows_of(MONODEPTH2)} | OTHERS["monodepth2_1"].keys()


def test_every_table_with_figures_has_a_second_transcription():
    assert TABLE_OF.keys() | OTHERS.keys() == TABLES.keys() - {"marigold_disparity"}


COUNTS = {
    "midas": {"DIW": 74441, "ETH3D": 454, "Sintel": 1064, "KITTI": 161, "NYU": 654, "TUM": 1815},
    "gp2": {"NYU": 654, "TUM": 1815, "ETH3D": 454, "Sintel": 1045, "DIW": 74441},
    "depth_anything": {"kitti": 652, "nyu": 654, "sintel": 1064, "ddad": None, "eth3d": 454, "diode": 325 + 446},
    "zoedepth": {
        "nyu": 654, "kitti": 652, "sun_rgbd": 5050, "ibims": 100, "diode_indoor": 325, "hypersim": 7690, "vkitti2": 1701,
        "ddad": 3950, "diml_outdoor": 500, "diode_outdoor": 446,
    },
    "marigold": {"nyu": 654, "kitti": 652, "eth3d": 454, "scannet": 800, "diode": 771},
}  # fmt: skip
OF_TABLE = {
    "monodepth2_1": 697, "monodepth2_1_1024": 697, "monodepth2_2": 697, "monodepth2_10": 697, "monodepth2_10_1024": 697,
    "monodepth2_11_416": 697, "monodepth2_12": 697, "monodepth2_6": 697, "monodepth2_3": 134, "monodepth2_7": 652,
    "monodepth2_8": 652,
    "monodepth2_9": 500, "zoedepth_1": 654, "depth_anything_3": 654, "depth_anything_4": 652,
}  # fmt: skip
ABLATION_PAIRS = 10_000
OTHER_SPLIT = {  # what the papers scored is not what the converter's split holds, for these reasons
    "midas_kitti": "a list of 161 of them", "gp2_uts_sintel_released": "19 have no depth below 72 m",
    "gp2_utss_sintel_released": "19 have no depth below 72 m", "monodepth2_benchmark": "labels of the test are on a server",
    "zoedepth_vkitti2": "a list that was not published", "midas_diw_train": "a list of 10,000 of them",
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_numbers_of_images_are_those_of_the_papers_and_of_the_converters(table):
    for column in table.columns:
        paper = column.protocols[0].partition("_")[0]
        if table.name in OF_TABLE:
            expected = OF_TABLE[table.name]
        elif column.protocols[0] == "midas_diw_train":
            expected = ABLATION_PAIRS
        else:
            family = "depth_anything" if paper == "depth" else paper
            expected = COUNTS[family][column.label.split()[0]]
        assert column.images == expected, column.label
        for name in column.protocols:
            test = name.removesuffix("_at_392x518")
            if name in TEST_DATA and test not in OTHER_SPLIT and column.images is not None:
                dataset, _, split, *_ = TEST_DATA[name].split()
                assert find(dataset).published[split] == column.images, (name, column.label)
    assert all(name in PROTOCOLS for name in OTHER_SPLIT)
