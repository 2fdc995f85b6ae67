"""Features from a middle layer of a trained network, and the nearest pictures by them.

Run `python examples/middle_layer.py`.
"""

import numpy as np
import torch

import lenext
from lenext.data import prepare
from lenext.spec import Data

bundle = lenext.load(lenext.train("digits", model="lenet_relu", epochs=5).bundle)
digits = prepare(Data("digits"))
bundle.scores(digits.test.images[:1])  # the first time its layers are counted, with tensors that hold nothing
features: list[torch.Tensor] = []
last = [layer for layer in bundle.classifier.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
hook = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))  # what the last layer is given
bundle.scores(digits.test.images)
hook.remove()

found = torch.nn.functional.normalize(torch.cat(features)).numpy()
alike = found @ found.T - 2 * np.eye(len(found))
nearest = alike.argmax(axis=1)
same = float((digits.test.labels == digits.test.labels[nearest]).mean())
print(f"{found.shape[1]} features an image; {same:.1%} of the nearest neighbours are of the same class")
