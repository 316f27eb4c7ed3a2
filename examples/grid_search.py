"""Choose the temperature and the depth of a distilled circuit by cross-validation of a pipeline."""

from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from qkd_qiskit import DistilledClassifier

samples, labels = load_wine(return_X_y=True)
student = DistilledClassifier(LogisticRegression(max_iter=5000), epochs=20, random_state=0)
search = GridSearchCV(
    make_pipeline(PCA(8, whiten=True), student),
    {"distilledclassifier__temperature": [1.0, 4.0], "distilledclassifier__layers": [1, 3]},
    cv=3,
).fit(samples, labels)
print(search.best_params_)
print(f"accuracy in cross-validation: {search.best_score_:.3f}")
