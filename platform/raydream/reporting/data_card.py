"""The data card: content, origin and use of a set of images; written beside the images."""

import yaml

from raydream.config import SynthesizeConfig
from raydream.config.conversion import as_dict
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import SynthesizeSummary
from raydream.store.atomic import write_atomically

OPENING = """\
```python
import pandas, pyarrow.parquet, ray
from raydream.data import ImageSet

images = ImageSet("{path}")                           # a torch Dataset of (uint8 [C,H,W], target)
frame = pandas.read_parquet("{path}/images")          # frame.image[0].reshape{shape}
table = pyarrow.parquet.read_table("{path}/images")
dataset = ray.data.read_parquet("{path}/images")
```"""


def write_card(folder: RunFolder, config: SynthesizeConfig, summary: SynthesizeSummary) -> None:
    """Write the card of a data set as Markdown, through a temporary file; raises OSError."""
    text = card(str(folder.place), config, summary)
    write_atomically(folder.path / "README.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))


def card(folder: str, config: SynthesizeConfig, summary: SynthesizeSummary) -> str:
    """Return the card's text.

    Args:
        folder: the run's folder.
        summary: its final figures.
    """
    teacher = config.teacher
    shape = tuple(teacher.input_shape)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in summary.losses.items())
    settings = yaml.safe_dump({"teacher": as_dict(teacher), "synthesis": as_dict(config.synthesis)}, sort_keys=False)
    return f"""# {config.experiment}: {summary.images} synthetic images

Made by inverting a trained network ({summary.method}); no image is real, and none was an input.
What the network was trained on may show in them: treat them with the care that its training data deserve.

| | |
| --- | --- |
| images | {summary.images} of {shape[0]} x {shape[1]} x {shape[2]}, uint8, in {summary.batches} Parquet files |
| targets | {config.synthesis.targets.rule}; images per class: {summary.images_per_class} |
| on target | {summary.target_share:.1%}, as the network itself classifies these very pixels |
| losses | {losses} (means over batches at the last update, before coefficients) |
| updates | {summary.updates} per image |
| network | {teacher.network}, weights {summary.teacher_fingerprint} |
| normalization | (pixels / 255 - {list(teacher.mean)}) / {list(teacher.std)} |
| seed | {summary.seed} |
| made with | {", ".join(f"{name} {version}" for name, version in summary.versions.items())}; {summary.machine} |

Columns: `batch`, `row`, `image` (C·H·W bytes, channels first), `target`, `teacher_logits`.

{OPENING.format(path=folder, shape=shape)}

## Settings

```yaml
{settings}```
"""
