from . import experiments as experiments
from . import network as network
from . import notebook as notebook
from . import widgets as widgets
from .avatar.avatar import Avatar as Avatar
from .avatar.loading import demo_folder as demo_folder
from .avatar.loading import demo_speeches as demo_speeches
from .avatar.loading import load_avatar as load_avatar
from .cli.progress import ProgressBar as ProgressBar
from .config.presets import PRESETS as PRESETS
from .config.presets import preset as preset
from .config.render_config import RenderConfig as RenderConfig
from .errors import LipsyncError as LipsyncError
from .notebook.report import write_report as write_report
from .pipeline.audio_features import load_speech as load_speech
from .pipeline.frame_trace import FrameTracer as FrameTracer
from .pipeline.render import FrameStream as FrameStream
from .pipeline.render import RenderResult as RenderResult
from .pipeline.render import iter_frames as iter_frames
from .pipeline.render import render as render
from .pipeline.timing import Timings as Timings
from .types.records import Frame as Frame
from .types.records import ModelSpec as ModelSpec
from .types.records import Progress as Progress
from .types.records import Speech as Speech
from .widgets.studio import Studio as Studio

__version__: str
