"""Each published loss against the paper's formula in numpy, its identities, its edges and vmap.

The formulas are written out here example by example, and differentiated by finite differences.
"""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import pearsonr

from qkd_qiskit.distillation import losses

SIZE, CLASSES = 6, 4
GENERATOR = torch.Generator().manual_seed(5)
STUDENT = 2 * torch.randn(SIZE, CLASSES, generator=GENERATOR, dtype=torch.float64)
TEACHER = 2 * torch.randn(SIZE, CLASSES, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 1, 0])


def cross_entropy(student, labels, *, smoothing=0.0):
    targets = np.full(student.shape, smoothing / student.shape[1])
    targets[np.arange(len(labels)), labels] += 1 - smoothing
    return np.mean([-(t * np.log(softmax(s))).sum() for s, t in zip(student, targets, strict=True)])


def kd(student, teacher, *, temperature):
    pairs = zip(student, teacher, strict=True)
    divergences = [rel_entr(softmax(t / temperature), softmax(s / temperature)) for s, t in pairs]
    return temperature**2 * np.mean([row.sum() for row in divergences])


def standardized(student, teacher, *, temperature):
    def scores(logits):
        return np.array([(row - np.mean(row)) / np.std(row) for row in logits])

    return kd(scores(student), scores(teacher), temperature=temperature)


def dkd(student, teacher, labels, *, temperature, alpha, beta):
    total = 0.0
    for s, t, label in zip(student, teacher, labels, strict=True):
        p, q = softmax(t / temperature), softmax(s / temperature)
        target = rel_entr([p[label], 1 - p[label]], [q[label], 1 - q[label]]).sum()
        others = np.arange(len(p)) != label
        other = rel_entr(p[others] / p[others].sum(), q[others] / q[others].sum()).sum()
        total += alpha * target + beta * other
    return temperature**2 * total / len(labels)


def dist(student, teacher, *, temperature, beta, gamma):
    own, taught = softmax(student / temperature, axis=1), softmax(teacher / temperature, axis=1)
    between_classes = np.mean([1 - pearsonr(u, v)[0] for u, v in zip(own, taught, strict=True)])
    between_examples = np.mean(
        [1 - pearsonr(u, v)[0] for u, v in zip(own.T, taught.T, strict=True)]
    )
    return beta * between_classes + gamma * between_examples


def huber(x, y):
    size = abs(x - y)
    return size**2 / 2 if size <= 1 else size - 0.5


def rkd_distance(student, teacher):
    pairs = [(i, j) for i in range(len(student)) for j in range(len(student)) if i != j]

    def relative(points):
        distances = [np.linalg.norm(points[i] - points[j]) for i, j in pairs]
        return np.array(distances) / np.mean(distances)

    return np.mean([huber(x, y) for x, y in zip(relative(teacher), relative(student), strict=True)])


def rkd_angle(student, teacher):
    def cosine(points, i, j, k):
        first, second = points[i] - points[j], points[k] - points[j]
        return first @ second / np.linalg.norm(first) / np.linalg.norm(second)

    places = range(len(student))
    triples = [(i, j, k) for i in places for j in places for k in places if len({i, j, k}) == 3]
    return np.mean([huber(cosine(teacher, *which), cosine(student, *which)) for which in triples])


def similarity(student, teacher):
    def matrix(points):
        raw = np.array([[a @ b for b in points] for a in points])
        return np.array([row / np.sqrt((row**2).sum()) for row in raw])

    return ((matrix(teacher) - matrix(student)) ** 2).sum() / len(student) ** 2


def pkt(student, teacher):
    def similar(a, b):
        return (a @ b / math.sqrt((a @ a) * (b @ b)) + 1) / 2

    def neighbours(points, i):
        others = [similar(points[i], points[j]) for j in range(len(points)) if j != i]
        return np.array(others) / sum(others)

    rows = range(len(student))
    return np.mean([rel_entr(neighbours(teacher, i), neighbours(student, i)).sum() for i in rows])


def jensen_shannon(student, teacher, *, temperature):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        p, q = softmax(s / temperature), softmax(t / temperature)
        total += 0.5 * (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum()
    return temperature**2 * total / len(student)


# Name: the loss, its formula, whether it takes the teacher and the labels, and its options.
CASES = {
    "label": (losses.label_loss, cross_entropy, False, True, {}),
    "smoothing": (losses.label_smoothing_loss, cross_entropy, False, True, {"smoothing": 0.2}),
    "kd": (losses.distillation_loss, kd, True, False, {"temperature": 3.0}),
    "standardized": (
        losses.standardized_distillation_loss, standardized, True, False, {"temperature": 0.7},
    ),
    "dkd": (
        losses.decoupled_loss, dkd, True, True, {"temperature": 2.0, "alpha": 0.7, "beta": 3.0},
    ),
    "dist": (
        losses.dist_loss, dist, True, False, {"temperature": 1.5, "beta": 2.0, "gamma": 0.5},
    ),
    "rkd_distance": (losses.rkd_distance_loss, rkd_distance, True, False, {}),
    "rkd_angle": (losses.rkd_angle_loss, rkd_angle, True, False, {}),
    "similarity": (losses.similarity_loss, similarity, True, False, {}),
    "pkt": (losses.pkt_loss, pkt, True, False, {}),
    "jensen_shannon": (
        losses.jensen_shannon_loss, jensen_shannon, True, False, {"temperature": 2.5},
    ),
}  # fmt: skip
TAUGHT = [name for name, case in CASES.items() if case[2]]
RELATIONS = ["rkd_distance", "rkd_angle", "similarity", "pkt"]


def call(name, student, teacher=TEACHER, labels=LABELS, *, formula=False):
    loss, reference, taught, labelled, options = CASES[name]
    given = [student, *[teacher] * taught, *[labels] * labelled]
    if formula:
        return reference(*(np.asarray(each) for each in given), **options)
    return loss(*given, **options)


def gradient(name, student, teacher=TEACHER, labels=LABELS):
    leaf = student.detach().clone().requires_grad_()
    loss = call(name, leaf, teacher, labels)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_formula(name):
    value, slope = gradient(name, STUDENT)
    assert value.shape == ()
    assert float(value) == pytest.approx(call(name, STUDENT, formula=True), abs=1e-9)
    assert float(value) > 1e-3
    step = 1e-5
    for index in np.ndindex(*STUDENT.shape):
        ahead, behind = STUDENT.clone(), STUDENT.clone()
        ahead[index] += step
        behind[index] -= step
        difference = call(name, ahead, formula=True) - call(name, behind, formula=True)
        assert slope[index].item() == pytest.approx(difference / (2 * step), abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_finite_differences(name):
    assert torch.autograd.gradcheck(lambda x: call(name, x), (STUDENT.clone().requires_grad_(),))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vmap_agrees_with_a_loop(name, dtype):
    students = torch.stack([STUDENT, 2 * STUDENT.flip(0), TEACHER, STUDENT[:, :1].expand(-1, 4)])
    teachers = torch.stack([TEACHER, STUDENT, TEACHER, STUDENT]).to(dtype)
    labels = torch.stack([LABELS, LABELS.flip(0), LABELS, LABELS])
    leaf = students.to(dtype).requires_grad_()
    mapped = torch.func.vmap(lambda *each: call(name, *each))(leaf, teachers, labels)
    looped = torch.stack([call(name, *each) for each in zip(leaf, teachers, labels, strict=True)])
    assert mapped.dtype == dtype
    torch.testing.assert_close(mapped, looped)
    slopes = [torch.autograd.grad(each.sum(), leaf)[0] for each in (mapped, looped)]
    torch.testing.assert_close(*slopes)
    assert slopes[0].isfinite().all()
    functional = torch.func.vmap(torch.func.grad(lambda *each: call(name, *each)))
    torch.testing.assert_close(functional(leaf.detach(), teachers, labels), slopes[1])


@pytest.mark.parametrize("name", CASES)
def test_single_precision_is_that_of_the_formula(name):
    value, single = gradient(name, STUDENT.float(), TEACHER.float())
    exact, slope = gradient(name, STUDENT)
    assert value.dtype == single.dtype == torch.float32
    assert float(value) == pytest.approx(float(exact), rel=1e-4)
    torch.testing.assert_close(single.double(), slope, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", TAUGHT)
def test_a_student_that_is_the_teacher_has_no_loss_and_no_gradient(name):
    value, slope = gradient(name, TEACHER)
    assert abs(float(value)) < 1e-12
    assert slope.abs().max() < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_the_examples_does_not_matter(name):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = call(name, STUDENT[order], TEACHER[order], LABELS[order])
    torch.testing.assert_close(shuffled, call(name, STUDENT))


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_left_alone(name):
    given = STUDENT.clone(), TEACHER.clone(), LABELS.clone()
    gradient(name, *given)
    for each, before in zip(given, (STUDENT, TEACHER, LABELS), strict=True):
        assert torch.equal(each, before)


@pytest.mark.parametrize(
    ("names", "change"),
    [
        # A softmax does not see a constant that is added to an example's logits.
        (
            ["label", "smoothing", "kd", "standardized", "dkd", "dist", "jensen_shannon"],
            lambda x: x + 3 * torch.arange(SIZE)[:, None],
        ),
        (["standardized", "pkt"], lambda x: x * (1 + torch.arange(SIZE)[:, None])),
        (["rkd_distance", "rkd_angle"], lambda x: x + 3 * torch.arange(CLASSES)),
        (["standardized", *RELATIONS], lambda x: 5 * x),
        (RELATIONS, lambda x: x @ torch.linalg.qr(TEACHER[:CLASSES])[0]),
    ],
    ids=["shift of each", "scale of each", "shift of all", "scale of all", "rotation"],
)
def test_what_a_loss_does_not_see(names, change):
    blind = [
        name for name in CASES if torch.isclose(call(name, change(STUDENT)), call(name, STUDENT))
    ]
    assert sorted(blind) == sorted(names)


def test_the_decoupled_loss_puts_hintons_together():
    """Hinton's divergence is TCKD + (1 - p_label) NCKD, for a batch of one."""
    for row in range(SIZE):
        student, teacher, labels = STUDENT[row : row + 1], TEACHER[row : row + 1], LABELS[[row]]
        rest = 1 - softmax(teacher.numpy()[0] / 2.0)[labels.item()]
        decoupled = losses.decoupled_loss(
            student, teacher, labels, temperature=2.0, alpha=1.0, beta=rest
        )
        whole = losses.distillation_loss(student, teacher, temperature=2.0)
        torch.testing.assert_close(decoupled, whole)


def test_of_two_classes_only_the_label_is_left_to_the_decoupled_loss():
    pair, taught, labels = STUDENT[:, :2], TEACHER[:, :2], LABELS % 2
    decoupled = losses.decoupled_loss(pair, taught, labels, temperature=3.0, alpha=1.0, beta=9.0)
    torch.testing.assert_close(decoupled, losses.distillation_loss(pair, taught, temperature=3.0))


def test_smoothing_of_nothing_is_the_label_and_of_everything_ignores_it():
    none, all_of_it = (
        losses.label_smoothing_loss(STUDENT, LABELS, smoothing=s) for s in (0.0, 1.0)
    )
    torch.testing.assert_close(none, losses.label_loss(STUDENT, LABELS))
    torch.testing.assert_close(all_of_it, -STUDENT.log_softmax(dim=1).mean())


def test_jensen_shannon_is_symmetric_and_bounded():
    both = (
        losses.jensen_shannon_loss(STUDENT, TEACHER),
        losses.jensen_shannon_loss(TEACHER, STUDENT),
    )
    torch.testing.assert_close(*both)
    apart = torch.tensor([[1e3, 0.0]]), torch.tensor([[0.0, 1e3]])
    assert losses.jensen_shannon_loss(*apart).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", RELATIONS)
def test_one_example_has_no_relation(name):
    value, slope = gradient(name, STUDENT[:1], TEACHER[:1])
    assert value == 0
    assert torch.equal(slope, torch.zeros(1, CLASSES, dtype=torch.float64))


def test_one_example_has_only_relations_between_its_classes():
    alone = losses.dist_loss(STUDENT[:1], TEACHER[:1], gamma=5.0)
    assert alone == losses.dist_loss(STUDENT[:1], TEACHER[:1], gamma=0.0)
    assert alone > 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: 0 * x,  # no logits at all
        lambda x: 0 * x + 1e-30,
        lambda x: x[:1].expand(SIZE, CLASSES),  # all at one place
        lambda x: x[[0, 0, 1, 1, 2, 3]],  # two pairs at one place
        lambda x: x[[0, 1, 2, 0, 1, 2]] * torch.tensor([1, 1, 1, -1, -1, -1])[:, None],  # opposite
        lambda x: 1e4 * x,  # as sure as can be
    ],
    ids=["zero", "tiny", "one place", "pairs", "opposite", "sure"],
)
def test_values_and_gradients_are_finite_at_the_edges(name, dtype, change):
    students, teachers = (STUDENT, change(STUDENT)), (TEACHER, change(TEACHER))
    for student in students:
        for teacher in teachers:
            value, slope = gradient(name, student.to(dtype), teacher.to(dtype))
            assert value.isfinite()
            assert slope.isfinite().all()
