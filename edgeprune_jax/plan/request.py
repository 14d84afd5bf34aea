"""What is planned: a model, its prompts, and devices in an order."""

from dataclasses import dataclass

from edgeprune_jax.plan.topology import find_topology
from edgeprune_jax.sharding import MeshShape


@dataclass(frozen=True)
class Request:
    """A step to compile."""

    model: str
    topology: str
    batch: int
    length: int
    answers: int = 1
    """Scored positions of an example."""
    layers: int | None = None
    """Only the model's first so many."""
    dtype: str = "bfloat16"
    """Of weights, activations and the outbox."""
    segment: int | None = None
    """Layers in a block of the masked pass, by default as many as when it runs."""
    data: int = 1
    """Parts of a batch."""
    fsdp: int = 1
    """Parts of the weights that are gathered when they are used, and of a batch."""

    def __post_init__(self):
        for name in ("batch", "length", "answers", "data", "fsdp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: got {getattr(self, name)}")
        for name in ("layers", "segment"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}")
        devices = find_topology(self.topology).devices
        if devices % (self.data * self.fsdp):
            raise ValueError(
                f"data x fsdp must divide the {devices} devices of {self.topology}: "
                f"got {self.data} x {self.fsdp}"
            )
        if self.batch % (self.data * self.fsdp):
            raise ValueError(
                f"batch must be a multiple of data x fsdp = {self.data * self.fsdp}: "
                f"got {self.batch}"
            )

    @property
    def mesh(self) -> MeshShape:
        """What is left of the devices splits the residual width."""
        rest = find_topology(self.topology).devices // (self.data * self.fsdp)
        return MeshShape(data=self.data, fsdp=self.fsdp, model=rest)
