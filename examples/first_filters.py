"""The filters of a trained network's first layer, as a picture: filters.png.

Run `python examples/first_filters.py [BUNDLE]`.
"""

import sys

import numpy as np
from PIL import Image

import lenext

ENLARGED = 12  # times
path = sys.argv[1] if len(sys.argv) > 1 else lenext.train("digits", model="lenet_relu", epochs=5).bundle
filters = lenext.load(path).classifier.first_layer()  # float32 [n, h, w, channels]
if filters is None:
    sys.exit(f"{path}: its first layer has no filters")
largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
pictures = np.rint(127.5 * (1 + filters / largest)).astype(np.uint8)  # gray is 0
framed = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
row = np.concatenate(list(framed), axis=1)
image = Image.fromarray(row[..., 0] if row.shape[2] == 1 else row)
image.resize((image.width * ENLARGED, image.height * ENLARGED), Image.Resampling.NEAREST).save("filters.png")
print(f"{len(filters)} filters in filters.png")
