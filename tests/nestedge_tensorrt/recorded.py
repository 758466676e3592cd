"""What devices print, as public logs have it, shortened to the lines that are read.

Sources: OE4T/meta-tegra#2243 and NVIDIA/TensorRT#4658 for trtexec; rbonghi/jetson_stats for
nvpmodel and nv_tegra_release; public build logs of Orin boards for packages and errors.
"""

from __future__ import annotations

ORIN_6 = """
@@ model
NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
@@ compatible
nvidia,p3768-0000+p3767-0005-super
nvidia,p3767-0005
nvidia,tegra234

@@ release
# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, DATE: Thu Sep 18

@@ packages
libnvinfer10\t10.3.0.30-1+cuda12.5
libnvinfer6\t
libnvinfer7\t
libnvinfer-bin\t10.3.0.30-1+cuda12.5
libnvinfer-dev\t10.3.0.30-1+cuda12.5
libnvinfer-dispatch10\t10.3.0.30-1+cuda12.5
nvidia-jetpack\t6.2.1+b38

@@ power
NVPM WARN: fan mode is not set!
NV Power Mode: MAXN_SUPER
2

@@ gpu
Orin (nvgpu), [N/A], 540.4.0

@@ cuda
{
   "cuda" : {
      "name" : "CUDA SDK",
      "version" : "12.6.11"
   },
   "cuda_cudart" : {
      "name" : "CUDA Runtime (cudart)",
      "version" : "12.6.68"
   }
}

@@ header
#define NV_INFER_VERSION_H
#define NV_TENSORRT_MAJOR 10 //!< TensorRT major version.
#define NV_TENSORRT_MINOR 3 //!< TensorRT minor version.
#define NV_TENSORRT_PATCH 0 //!< TensorRT patch version.
#define NV_TENSORRT_BUILD 30 //!< TensorRT build number.

@@ trtexec
/usr/src/tensorrt/bin/trtexec

@@ banner
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # /usr/src/tensorrt/bin/trtexec --help

@@ python
10.3.0
"""

XAVIER_5 = """
@@ model
NVIDIA Jetson Xavier NX Developer Kit
@@ compatible
nvidia,p3449-0000+p3668-0000
nvidia,tegra194
@@ release
# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1
@@ packages
libnvinfer8\t8.5.2-1+cuda11.4
nvidia-jetpack\t5.1.2-b104
@@ power
NV Power Mode: MODE_20W_6CORE
8
@@ gpu
sh: nvidia-smi: not found
@@ cuda
@@ header
@@ trtexec
/usr/src/tensorrt/bin/trtexec
@@ banner
&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # /usr/src/tensorrt/bin/trtexec --help
@@ python
8.5.2.2
"""

PC = """
@@ model
sh: 1: cannot open /proc/device-tree/model: No such file
@@ compatible
@@ release
head: cannot open '/etc/nv_tegra_release' for reading: No such file or directory
@@ packages
dpkg-query: no packages found matching libnvinfer[0-9]*
@@ power
sh: nvpmodel: not found
@@ gpu
NVIDIA H100 80GB HBM3, 9.0, 550.54.15
@@ cuda
@@ header
#define TRT_MAJOR_ENTERPRISE 10
#define TRT_MINOR_ENTERPRISE 16
#define TRT_PATCH_ENTERPRISE 0
#define TRT_BUILD_ENTERPRISE 72
#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE //!< TensorRT major version.
@@ trtexec
/usr/bin/trtexec
@@ banner
&&&& RUNNING TensorRT.trtexec [TensorRT v101600] [b72] # trtexec --help
@@ python
Traceback (most recent call last):
ModuleNotFoundError: No module named 'tensorrt'
"""

PASSED_8_5 = """&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=model.onnx --buildOnly
[06/17/2023-10:01:40] [I] === Device Information ===
[06/17/2023-10:01:40] [I] Selected Device: Xavier
[06/17/2023-10:01:40] [I] Compute Capability: 7.2
[06/17/2023-10:01:40] [I] TensorRT version: 8.5.2
[06/17/2023-10:01:52] [I] Engine built in 12.4375 sec.
[06/17/2023-10:01:52] [I] Skipped inference phase since --buildOnly is added.
&&&& PASSED TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=model.onnx --buildOnly
"""  # noqa: E501 - as it was printed

PASSED_10 = """&&&& RUNNING TensorRT.trtexec [TensorRT v101602] [b10] # trtexec --onnx=model.onnx
[01/01/1970-03:47:30] [I] Selected Device: Orin
[01/01/1970-03:47:30] [I] Compute Capability: 8.7
[01/01/1970-03:47:30] [I] TensorRT version: 10.16.2
[01/01/1970-03:47:31] [I] [TRT] Engine generation completed in 30.25 seconds.
[01/01/1970-03:48:02] [I] Created engine with size: 21.2 MiB
[01/01/1970-03:48:02] [W] * GPU compute time is unstable, with coefficient of variance = 7.58229%.
&&&& PASSED TensorRT.trtexec [TensorRT v101602] [b10] # trtexec --onnx=model.onnx
"""

PARSING = """&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx --saveEngine=m.engine
[09/02/2024-17:35:22] [W] [TRT] onnx2trt_utils.cpp:377: Your ONNX model has INT64 weights
[09/02/2024-17:35:22] [E] [TRT] ModelImporter.cpp:949: While parsing node number 146 [Tile -> "/T"]:
[09/02/2024-17:35:22] [E] [TRT] ModelImporter.cpp:950: --- Begin node ---
input: "/Unsqueeze_3_output_0"
op_type: "Tile"

[09/02/2024-17:35:22] [E] [TRT] ModelImporter.cpp:951: --- End node ---
[09/02/2024-17:35:22] [E] [TRT] ModelImporter.cpp:954: ERROR: ModelImporter.cpp:195 In function parseNode:
[6] Invalid Node - /Tile
ITensor::getDimensions: Error Code 4: Internal Error
[09/02/2024-17:35:22] [E] Failed to parse onnx file
[09/02/2024-17:35:22] [E] Parsing model failed
[09/02/2024-17:35:22] [E] Failed to create engine from model or file.
[09/02/2024-17:35:22] [E] Engine set up failed
&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx --saveEngine=m.engine
"""  # noqa: E501 - as it was printed

PLUGIN = """[06/30/2023-01:58:45] [E] [TRT] ModelImporter.cpp:773: While parsing node number 3 [Mish -> "y"]:
[06/30/2023-01:58:45] [E] [TRT] ModelImporter.cpp:774: --- End node ---
[06/30/2023-01:58:45] [E] [TRT] ModelImporter.cpp:777: ERROR: builtin_op_importers.cpp:5402 In function x:
[8] Assertion failed: creator && "Plugin not found, are the plugin name, version correct?"
[06/30/2023-01:58:45] [E] Failed to parse onnx file
&&&& FAILED TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=m.onnx
"""  # noqa: E501 - as it was printed

BUILDER = """[04/27/2026-18:38:45] [E] Error[10]: Could not find any implementation for node {ForeignNode[x]}.
[04/27/2026-18:38:45] [E] Engine could not be created from network
[04/27/2026-18:38:45] [E] Building engine failed
[04/27/2026-18:38:45] [E] Engine set up failed
&&&& FAILED TensorRT.trtexec [TensorRT v8600] # trtexec --onnx=m.onnx
"""  # noqa: E501 - as it was printed

UNKNOWN_OPTION = """&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=m.onnx --skipInference
=== Model Options ===
  --onnx=<file>               ONNX model
[04/27/2026-18:38:45] [E] Unknown option: --skipInference
&&&& FAILED TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=m.onnx --skipInference
"""  # noqa: E501 - as it was printed

SHAPES = """[10/14/2022-15:13:21] [E] Static model does not take explicit shapes since the shape of
[10/14/2022-15:13:21] [E] Network And Config setup failed
&&&& FAILED TensorRT.trtexec [TensorRT v8401] # trtexec --onnx=m.onnx --shapes=x:1
"""

NOT_SAVED = """[01/01/1970-03:48:02] [I] Engine built in 3.5 sec.
[01/01/1970-03:48:02] [E] Saving engine to file failed.
&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
"""

MEMORY = """[08/31/2024-21:29:05] [E] Error[1]: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)
[08/31/2024-21:29:05] [E] Engine could not be created from network
&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx
"""  # noqa: E501 - as it was printed
