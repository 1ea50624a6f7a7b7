from .form import ConfigForm as ConfigForm
from .microscope import Microscope as Microscope
from .run_panel import RunPanel as RunPanel
from .studio import Studio as Studio
from .timing_view import TimingView as TimingView
from .viewer import FrameViewer as FrameViewer
