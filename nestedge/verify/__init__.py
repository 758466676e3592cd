"""Is an artifact still its level? numpy and one runtime, so that it runs on a device too.

Every artifact carries inputs and what the level, run by torch, gave for them. The runtime that
opens its model runs them again here, and the outputs are compared. Where they differ, the values
in between are compared too, and the operator at which the error jumps is named. A build folder
keeps the results in verifications.json; one counts only for the model file whose hash it has.
"""

from nestedge.verify.checking import (
    localise_failures,
    tolerance_reason,
    verify_artifact,
    verify_folder,
)
from nestedge.verify.closeness import Closeness, measure_closeness, relative_error
from nestedge.verify.data import DataCheck, check_on_data
from nestedge.verify.localisation import localise
from nestedge.verify.record import (
    ENGINE_UNBUILT,
    VERIFICATIONS_FILE,
    Verification,
    deciding,
    load_verifications,
    save_verifications,
)
from nestedge.verify.steps import Localisation, WorstOperator
from nestedge.verify.trace import Trace, TracedOperator

__all__ = [
    "ENGINE_UNBUILT",
    "VERIFICATIONS_FILE",
    "Closeness",
    "DataCheck",
    "Localisation",
    "Trace",
    "TracedOperator",
    "Verification",
    "WorstOperator",
    "check_on_data",
    "deciding",
    "load_verifications",
    "localise",
    "localise_failures",
    "measure_closeness",
    "relative_error",
    "save_verifications",
    "tolerance_reason",
    "verify_artifact",
    "verify_folder",
]
