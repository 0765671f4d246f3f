"""The explorable figures by name, with what a page says where no script runs.

What they compute with is made in ``explored.py``, which imports the whole of crlib; who
only asks for the names, as lints do, need not.
"""

SAID = {
    "lens": "A layer of two inputs is turned by three sliders: its stable rank, the"
    " angle in which two classes differ, and the angle of the head. The picture shows"
    " the boundary and how near to it the classes come.",
    "attack": "A network of eight neurons divides a square among three classes. The"
    " attack takes one step at a time, with a norm, a budget, a loss and a scale of the"
    " logits to choose.",
    "draw": "On the picture of a boot one paints a perturbation. It is divided into"
    " what the first layer of a network lets through and what it does not.",
    "forking": "A setting of a study is compared with a control: the checkpoint, the"
    " measure, the control and the number of seeds are choices, and the verdict follows"
    " them.",
    "gauge": "Four sliders rescale the neurons of a small network. Its curve stays"
    " where it is; row norms, compressibility, penalty and certificate move.",
}
NAMES = tuple(SAID)
