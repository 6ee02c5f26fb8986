"""The type of arrays of real numbers, in whichever of the two precisions they came."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
