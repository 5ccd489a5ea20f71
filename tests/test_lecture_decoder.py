"""The decoder in the page: the program in JavaScript gives what PyTorch gives."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

import aelab
from aelab import recipe_files
from aelab.errors import UserError
from aelab.lecture.decoder import program
from aelab.recipe import Recipe

DECODER = Path(aelab.__file__).parent / "lecture" / "decoder.js"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node to run the page's JavaScript with")
RUN = """
const { program, codes } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const decode = makeDecoder(program);
const images = codes.map((code) => Array.from(decode(code)));
const begun = performance.now();
for (let k = 0; k < 20; k++) decode(codes[0]);
console.log(JSON.stringify({ images, milliseconds: (performance.now() - begun) / 20 }));
"""


def in_javascript(made, codes):
    """The images of codes (N, D) as the page decodes them, (N, C H W), and how long one takes."""
    given = json.dumps({"program": made, "codes": codes.tolist()})
    code = DECODER.read_text() + RUN
    ended = subprocess.run([NODE, "-e", code], input=given, capture_output=True, text=True, check=True)
    answer = json.loads(ended.stdout)
    return torch.tensor(answer["images"]), answer["milliseconds"]


def randomised(recipe):
    """Weights large enough that the images differ, and running averages of batch normalisations away from 0 and 1."""
    for module in recipe.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return recipe.eval()


def built(name, image=(1, 28, 28), **options):
    return randomised(recipe_files.build(recipe_files.trust(name), image, options, 10))


class Odd(Recipe):
    """Every layer that the page knows, of odd sizes that are not square."""

    lr = 1e-3

    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(
            nn.Linear(5, 14),
            nn.LeakyReLU(0.3),
            nn.BatchNorm1d(14, affine=False),
            nn.Linear(14, 3 * 3 * 5, bias=False),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Unflatten(1, (3, 3, 5)),
            nn.ConvTranspose2d(3, 4, (3, 5), stride=(2, 3), padding=(0, 1), output_padding=(1, 0)),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 8, (3, 2), stride=(1, 2), padding=(1, 0)),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(2, 3, 1, bias=False),
        )
        self.shift = nn.Parameter(torch.randn(3, 16, 14))

    def decode(self, z):
        a, b, c = z.split([1, 2, 2], 1)
        x = self.decoder(torch.cat([b * 2.0, 1 - c, a - 0.5], -1))
        return torch.sigmoid((x + self.shift)[:, :, 1:14, :-1])


@needs_node
@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(lambda: built("vae"), 20, id="vae"),
        pytest.param(lambda: built("vae", net="mlp"), 20, id="vae-mlp"),
        pytest.param(lambda: built("vae", (1, 8, 8), latent_dim=2), 2, id="vae-8"),
        pytest.param(lambda: built("vae", (1, 8, 8), net="mlp", conditional=True), 30, id="vae-8-mlp"),
        pytest.param(lambda: built("vae", (3, 32, 32), likelihood="gaussian"), 20, id="vae-colour"),
        pytest.param(lambda: built("gan"), 84, id="gan"),
        pytest.param(lambda: built("gan", (1, 11, 13)), 84, id="gan-odd"),
        pytest.param(lambda: built("gan", net="conv"), 84, id="gan-conv"),
        pytest.param(lambda: built("vaegan"), 32, id="vaegan"),
        pytest.param(lambda: built("stacked"), 30, id="stacked"),
        pytest.param(lambda: built("linear"), 10, id="linear"),
        pytest.param(lambda: randomised(Odd()), 5, id="odd"),
    ],
)
def test_the_page_decodes_what_pytorch_decodes(make, size):
    recipe = make()
    codes = 2 * torch.randn(4, size)
    with torch.no_grad():
        images = recipe.decode(codes)
    made = program(recipe, codes[:1])
    assert (made["code"], made["image"]) == (size, list(images.shape[1:]))
    decoded, milliseconds = in_javascript(json.loads(json.dumps(made)), codes)
    torch.testing.assert_close(decoded, images.flatten(1), atol=1e-4, rtol=0)
    assert images.std(0).mean() > 1e-3, "the images differ, so the comparison means something"
    assert milliseconds < 120, "30 ms on an idle machine"


@pytest.mark.parametrize("name", ["recurrent", "rbm"])
def test_what_the_page_cannot_run_is_said(name):
    recipe = built(name)
    code = torch.zeros(1, 30 if name == "recurrent" else 500)
    with pytest.raises(UserError, match=r"cannot run this decoder: it has the operation aten\.\w+"):
        program(recipe, code)


def test_weights_are_those_of_the_recipe():
    """Four bytes a weight, in base64, which is what the page grows by."""
    recipe = built("vae", (1, 8, 8), latent_dim=2)
    made = program(recipe, torch.zeros(1, 2))
    characters = sum(map(len, made["weights"].values()))
    bytes_ = 4 * sum(weight.numel() for weight in recipe.decoder.parameters())
    assert bytes_ * 4 / 3 <= characters <= bytes_ * 4 / 3 + 4 * len(made["weights"])
