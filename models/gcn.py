"""Graph convolutions, averaged over each graph."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from isoloss.models.catalogue import MODELS, ModelError, check_choice
from isoloss.pyg import import_pyg

FORMS = ("standard", "sam-project")


class GCN(nn.Module):
    """Five graph convolutions, mean over each graph, two linear layers.

    Names and shapes of the parameters are the SAM project's, whose checkpoints load as they are
    (with `conv="graph"`). Its network leaves `conv5` unused and has no ReLU after `conv4` and
    `lin1`: this is `form="sam-project"`, the one to evaluate its checkpoints with.

    Args:
        num_features: of a node.
        num_classes: number of logits.
        hidden: features after the first convolution; twice as many after the others.
        dropout: probability, before each linear layer.
        conv: "graph", the GraphConv of Morris et al. 2019, which sums over neighbours and has
            weights of its own for the node itself; "gcn", the GCNConv of Kipf & Welling 2017.
        form: "standard" or "sam-project".
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden: int,
        dropout: float,
        conv: str,
        form: str,
    ) -> None:
        super().__init__()
        layers = import_pyg().nn
        convolution = {"graph": layers.GraphConv, "gcn": layers.GCNConv}[conv]
        wide = 2 * hidden
        self.conv1 = convolution(num_features, hidden)
        self.conv2 = convolution(hidden, wide)
        self.conv3 = convolution(wide, wide)
        self.conv4 = convolution(wide, wide)
        self.conv5 = convolution(wide, wide)
        self.lin1 = nn.Linear(wide, hidden)
        self.lin2 = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.pool = layers.MeanAggregation()
        self.form = form

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        """Map a batch of graphs to logits.

        Args:
            x: features, (nodes, num_features).
            edge_index: from and to, (2, edges).
            batch: the graph of each node, (nodes,), ascending; one graph where None.

        Returns:
            Shape (graphs, num_classes).
        """
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = F.relu(convolution(x, edge_index))
        x = self.conv4(x, edge_index)
        if self.form == "standard":
            x = F.relu(self.conv5(F.relu(x), edge_index))
        y = self.lin1(self.dropout(self.pool(x, batch)))
        if self.form == "standard":
            y = F.relu(y)
        return self.lin2(self.dropout(y))


@MODELS.register(
    "gcn",
    "five graph convolutions (64, then 128), mean over the graph, two linear layers",
    optimizer="adam",
    inputs="graph",
    input_shape=None,
    datasets=("tu:Mutagenicity", "synthetic-graphs"),
    smallest={"hidden": 8},
    smallest_shape=None,
    forms=FORMS,
)
def gcn(
    num_features: int = 14,
    num_classes: int = 2,
    hidden: int = 64,
    dropout: float = 0.8,
    conv: str = "graph",
    form: str = "standard",
) -> GCN:
    """Build a graph network; 125,442 parameters for the 14 atoms of Mutagenicity and 2 classes.

    Args:
        num_features: of a node.
        num_classes: number of logits.
        hidden: features after the first convolution; twice as many after the others.
        dropout: probability, before each linear layer.
        conv: "graph" (GraphConv) or "gcn" (GCNConv).
        form: "standard"; or "sam-project", where the fifth convolution is there but unused and
            ReLU follows only the first three.

    Raises:
        ModelError: an argument that is none of its choices, or no features.
        PygError: torch-geometric cannot be imported.
    """
    check_choice("conv of gcn", conv, ("graph", "gcn"))
    check_choice("form of gcn", form, FORMS)
    if min(num_features, hidden) < 1:
        raise ModelError(
            f"gcn expects at least 1 feature a node and 1 hidden, got {num_features} and {hidden}"
        )
    return GCN(num_features, num_classes, hidden, dropout, conv, form)


# The SAM project's name of it. Its weights fit either form, and mean something in this one alone.
MODELS.alias("GCN", "gcn", form="sam-project")
