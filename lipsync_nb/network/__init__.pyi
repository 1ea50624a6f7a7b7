from .checkpoints import Exported as Exported
from .checkpoints import export_checkpoint as export_checkpoint
from .unet328 import untrained_generator as untrained_generator
