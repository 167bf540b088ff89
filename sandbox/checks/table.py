"""What a mechanism may import: allowed modules with their public names, as a table of data.

`names.json` is the table that checks read, so that a judgement never depends on what happens to
be installed where the check runs. `python -m sandbox.checks.table` writes it again from the real
modules: public names that are no modules, minus those refused below. Review its diff.
"""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from types import ModuleType

FILE = Path(__file__).with_name("names.json")

MODULES_TEXT = (
    "__future__ abc array bisect cmath collections collections.abc contextlib copy dataclasses "
    "decimal enum fractions functools hashlib heapq itertools json math numbers numpy "
    "numpy.exceptions numpy.fft numpy.lib.stride_tricks numpy.linalg numpy.polynomial "
    "numpy.random numpy.typing operator random re sandbox.mechanism statistics string textwrap "
    "types typing warnings zlib struct graphlib difflib"
)
# Of the search libraries no more than search needs, by name: nothing of these reads or writes
# files, fetches, starts processes, evaluates text (as scipy's rv_continuous does), or unpickles.
SEARCH = {
    "cmaes": "CMA CMAwM SepCMA get_warm_start_mgd",
    "optuna": "Study create_study",
    "optuna.distributions": "BaseDistribution CategoricalDistribution FloatDistribution "
    "IntDistribution",
    "optuna.logging": "CRITICAL ERROR WARNING set_verbosity",
    "optuna.samplers": "CmaEsSampler GridSampler NSGAIISampler QMCSampler RandomSampler TPESampler",
    "optuna.study": "Study StudyDirection create_study",
    "optuna.trial": "FrozenTrial Trial TrialState create_trial",
    "scipy.interpolate": "Akima1DInterpolator CubicSpline PchipInterpolator RBFInterpolator "
    "UnivariateSpline interp1d",
    "scipy.linalg": "LinAlgError cho_factor cho_solve cholesky det eigh eigvalsh expm inv lstsq "
    "pinv qr solve solve_triangular sqrtm svd",
    "scipy.optimize": "Bounds LinearConstraint NonlinearConstraint OptimizeResult approx_fprime "
    "bisect brentq curve_fit differential_evolution direct dual_annealing least_squares "
    "linear_sum_assignment linprog lsq_linear milp minimize minimize_scalar nnls shgo",
    "scipy.spatial.distance": "cdist pdist squareform",
    "scipy.special": "betainc betaln erf erfc erfcinv erfcx erfinv expit gamma gammainc gammaln "
    "log_ndtr logit logsumexp ndtr ndtri softmax xlogy",
    "scipy.stats": "bernoulli beta binom bootstrap cauchy chi2 expon f_oneway friedmanchisquare "
    "gamma gaussian_kde gmean iqr kendalltau kruskal ks_2samp kurtosis laplace levy_stable "
    "linregress loguniform mannwhitneyu median_abs_deviation mode multivariate_normal "
    "multivariate_t norm pearsonr rankdata sem skew spearmanr t theilslopes trim_mean truncnorm "
    "ttest_1samp ttest_ind ttest_rel uniform wilcoxon zscore",
    "scipy.stats.qmc": "Halton LatinHypercube MultivariateNormalQMC Sobol discrepancy scale",
    "sklearn.ensemble": "ExtraTreesClassifier ExtraTreesRegressor GradientBoostingRegressor "
    "HistGradientBoostingRegressor RandomForestClassifier RandomForestRegressor",
    "sklearn.exceptions": "ConvergenceWarning NotFittedError",
    "sklearn.gaussian_process": "GaussianProcessClassifier GaussianProcessRegressor",
    "sklearn.gaussian_process.kernels": "ConstantKernel DotProduct ExpSineSquared Hyperparameter "
    "Kernel Matern Product RBF RationalQuadratic Sum WhiteKernel",
    "sklearn.linear_model": "BayesianRidge ElasticNet HuberRegressor Lasso LinearRegression "
    "LogisticRegression QuantileRegressor Ridge RidgeCV TheilSenRegressor",
    "sklearn.neighbors": "KNeighborsRegressor KernelDensity NearestNeighbors",
    "sklearn.preprocessing": "MinMaxScaler OrdinalEncoder PolynomialFeatures PowerTransformer "
    "QuantileTransformer RobustScaler SplineTransformer StandardScaler",
    "sklearn.tree": "DecisionTreeRegressor ExtraTreeRegressor",
}
MECHANISM_MODULES = sorted([*MODULES_TEXT.split(), *SEARCH])
TEST_MODULES = ["numpy.testing", "pytest", "sandbox.testing"]

ONLY = {
    **SEARCH,
    "numpy.lib.stride_tricks": "sliding_window_view",  # as_strided reads raw memory
    "sandbox.testing": "ScriptedPrior awkward_views example_space faults make_trial make_view "
    "scripted_prior",
    "zlib": "adler32 crc32",
    "types": "MappingProxyType SimpleNamespace",
    "warnings": "catch_warnings filterwarnings simplefilter warn",
    "pytest": "approx fail fixture mark param raises skip warns xfail",
    "numpy.testing": "assert_allclose assert_almost_equal assert_array_almost_equal "
    "assert_array_equal assert_array_less assert_equal assert_raises",
}

REFUSED = {
    # These evaluate text as code, or reach attributes by a text.
    "dataclasses": "make_dataclass",
    "functools": "singledispatch singledispatchmethod",
    "string": "Formatter",
    "typing": "ForwardRef get_type_hints",
    # Randomness outside of the seed.
    "random": "SystemRandom",
    # Files, native code, names of the caller, or the build of the library itself.
    "contextlib": "chdir",
    "hashlib": "file_digest",
    # These read the clock: datetime64("now").
    "numpy": "datetime64 datetime_as_string datetime_data busday_count busday_offset "
    "busdaycalendar is_busday bmat from_dlpack fromfile fromregex genfromtxt get_include info "
    "load loadtxt memmap save savetxt savez savez_compressed show_config show_runtime test",
    "numpy.random": "test get_bit_generator set_bit_generator",
    "numpy.fft": "test",
    "numpy.linalg": "test",
    "numpy.polynomial": "test",
    "sandbox.mechanism": "Any Callable Collection Iterable Iterator Literal Mapping "
    "MappingProxyType annotations dataclass field",
}


def public_names(module: str) -> list[str]:
    """The allowed names of an installed module, by looking at it."""
    real = importlib.import_module(module)
    if module in ONLY:
        names = ONLY[module].split()
        if missing := [name for name in names if not hasattr(real, name)]:
            raise LookupError(f"{module} has no {', '.join(missing)}: mend sandbox/checks/table.py")
        return sorted(names)
    offered = dir(real) if module == "numpy" else getattr(real, "__all__", dir(real))
    refused = set(REFUSED.get(module, "").split())
    return sorted(
        name
        for name in set(offered)
        if not name.startswith("_")
        and name not in refused
        and not isinstance(getattr(real, name), ModuleType)
    )


@cache
def allowed_names() -> dict[str, frozenset[str]]:
    """Module -> its allowed names, for mechanisms and tests together."""
    return {module: frozenset(names) for module, names in json.loads(FILE.read_text()).items()}


def main() -> None:
    """Write the table."""
    table = {m: public_names(m) for m in [*MECHANISM_MODULES, *TEST_MODULES]}
    FILE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
