"""The fields of the section `optimizer`: a part of the schema, which is imgclf/schema.py, with a
file of its own.
"""

from imgclf.fields import Field, choice, number

OPTIMIZER: dict[str, Field] = {
  "name": choice(
    "adam",
    "adam (decoupled weight decay, i.e. AdamW), sgd (momentum), lamb, lars, lion, or muon (orthogonal updates of "
    "hidden filters).",
    "adam",
    "sgd",
    "lamb",
    "lars",
    "lion",
    "muon",
  ),
  "learning_rate": number(float, 1e-3, "Peak learning rate.", 0, above=True),
  "reference_batch_size": number(
    int,
    None,
    "learning_rate is meant for this batch size and is scaled by batch_size / this; none: used as is.",
    1,
  ),
  "weight_decay": number(
    float,
    1e-4,
    "Weight decay: decoupled for adam, lamb and lion, added to the gradient for sgd and lars (as in the papers).",
  ),
  "decay_bias_and_norm": Field(
    bool, False, "Decay biases and norm scales too, not only parameters of 2 or more axes."
  ),
  "l1": number(
    float, 0.0, "Penalty: this times the sum of |w| of the decayed parameters, added to the loss."
  ),
  "l2": number(
    float,
    0.0,
    "Penalty: this times half the sum of w^2 of the decayed parameters, added to the loss.",
  ),
  "b1": number(float, 0.9, "adam, lamb, lion: decay of the first moment.", 0, 1, below=True),
  "b2": number(
    float,
    0.999,
    "adam, lamb: decay of the second moment; lion: of the one that is kept (0.99 in its paper).",
    0,
    1,
    below=True,
  ),
  "epsilon": number(float, 1e-8, "adam, lamb: added to the denominator.", 0, above=True),
  "momentum": number(float, 0.9, "sgd, lars: momentum.", 0, 1, below=True),
  "nesterov": Field(bool, False, "sgd, lars: Nesterov's form of momentum."),
  "trust_coefficient": number(
    float,
    0.001,
    "lars: a layer's step is this times the norm of its weights, times the learning rate.",
    0,
    above=True,
  ),
  "muon_momentum": number(
    float, 0.95, "muon: momentum, in Nesterov's form, of the hidden filters.", 0, 1, below=True
  ),
  "muon_steps": number(
    int, 5, "muon: Newton-Schulz iterations that make an update orthogonal.", 1, 100
  ),
  "muon_rest": choice(
    "adam", "muon: what updates biases, norms and the head, with its own fields.", "adam", "sgd"
  ),
  "muon_unit_filters": Field(
    bool,
    False,
    "muon: the filters of a layer are scaled to a mean square norm of 1 before each update, for networks in "
    "which batch norm follows.",
  ),
  "rules": Field(
    str,
    "",
    "Factors for parameters by name, `PATTERN: lr=A decay=B from=C until=D; …`, the first that fits: of the "
    "learning rate (0: frozen) and of the weight decay, the share of the run before which they are frozen, and "
    "that in which the schedule is gone through.",
  ),
  "layer_decay": number(
    float,
    None,
    "The learning rate of a layer is multiplied by this once for each layer between it and the logits; none: "
    "all have the same.",
    0,
    1,
    above=True,
  ),
  "clip_norm": number(
    float,
    None,
    "Gradients are scaled down to this global norm; none: no clipping.",
    0,
    above=True,
  ),
  "sam_rho": number(
    float,
    None,
    "Sharpness-aware minimisation: the gradient is that at the weights moved by this far up the gradient, which "
    "doubles the work of a step; none: off.",
    0,
    above=True,
  ),
  "accumulate_steps": number(
    int, 1, "Parts that a device's share of a batch is computed in, to save memory.", 1
  ),
  "ema_decay": number(
    float,
    None,
    "Decay of the moving average of the weights, which is then what is evaluated; none: off.",
    0,
    1,
    below=True,
  ),
}
