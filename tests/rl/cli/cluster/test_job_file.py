"""`thinkvl submit --write`: a script for Slurm, a file for KubeRay, and what is refused before one is written."""

import base64
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

RECIPES = Path(__file__).parents[4] / "configs" / "recipes"
QUICKSTART = RECIPES / "quickstart.yaml"
LARGE = RECIPES / "kimi_vl_a3b" / "4x8xh100.yaml"


@pytest.fixture
def submit(thinkvl):
    """Run `thinkvl submit` in `tmp_path`; gives the exit code and what it printed, on one line."""

    def run(*arguments):
        code, output, errors = thinkvl("submit", *map(str, arguments))
        return code, " ".join(f"{output} {errors}".split())

    return run


def stand_ins(folder, *, exit_code=0):
    """`srun`, `ray`, `thinkvl` and `hostname` that record how they are called."""
    folder.mkdir()
    scripts = {
        "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',  # its options have no values of their own
        "ray": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
        "thinkvl": f'env | grep -e ^RAY_ -e ^HF_; for argument; do echo "[$argument]"; done; exit {exit_code}',
        "hostname": "echo 10.0.0.7 192.168.0.7",
    }
    for name, body in scripts.items():
        record = "" if name in ("thinkvl", "hostname") else f'echo "{name} $*"\n'
        (folder / name).write_text(f"#!/bin/sh\n{record}{body}\n")
        (folder / name).chmod(0o755)
    return folder


def test_the_slurm_script_runs_the_recipe_on_all_nodes(submit, tmp_path):
    recipe = tmp_path / "my recipe.yaml"
    recipe.write_text(LARGE.read_text())
    code, output = submit(
        recipe, "rl.steps=7", "name=Mine & yours", "--write", "jobs/job.sbatch", "--env", "HF_HOME=/a b"
    )
    assert (code, output) == (0, "wrote jobs/job.sbatch: 4 nodes of 8 GPUs; start it with: sbatch jobs/job.sbatch")
    script = (tmp_path / "jobs/job.sbatch").read_text()
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=4", "--gpus-per-node=8", "--ntasks-per-node=1", "--job-name=mine-yours"} <= set(options)
    python = next(line for line in script.splitlines() if line.startswith("export PATH="))
    own = stand_ins(tmp_path / "bin")
    script = script.replace(python, f"export PATH={own}:$PATH")
    environment = os.environ | {"SLURM_JOB_ID": "123456", "SLURM_JOB_NUM_NODES": "4"}
    done = subprocess.run(["bash", "-c", script], cwd="/", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "ray symmetric-run --address 10.0.0.7:23456 --min-nodes 4 --" in lines[1]
    assert {"RAY_ADDRESS=auto", "HF_HOME=/a b"} <= set(lines)
    given = [line for line in lines if line.startswith("[")]
    folder = tmp_path / yaml.safe_load(LARGE.read_text())["output_dir"]
    assert given == ["[run]", f"[{recipe}]", "[rl.steps=7]", "[name=Mine & yours]", f"[output_dir={folder}]"]


def test_the_slurm_script_ends_with_the_code_of_the_run(submit, tmp_path):
    file = tmp_path / "job.sh"
    assert submit(QUICKSTART, "--write", file, "--gpus-per-node", 0)[0] == 0
    own = stand_ins(tmp_path / "bin", exit_code=3)
    script = "".join(
        f"export PATH={own}:$PATH\n" if line.startswith("export PATH=") else f"{line}\n"
        for line in file.read_text().splitlines()
    )
    environment = os.environ | {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1"}
    assert subprocess.run(["bash", "-c", script], env=environment, capture_output=True).returncode == 3
    assert "gpus" not in file.read_text()


def test_the_slurm_script_passes_shellcheck(submit, tmp_path):
    file = tmp_path / "job.sbatch"
    assert submit(LARGE, "rl.steps=7", "--write", file, "--env", "HF_HOME=/a b")[0] == 0
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def job(submit, tmp_path):
    """Write a RayJob; gives its ConfigMap and itself."""
    shutil.copytree(RECIPES.parents[1] / "examples" / "task_file", tmp_path / "examples" / "task_file")

    def write(recipe, *arguments):
        code, output = submit(
            recipe, *arguments, "--write", "job.yaml", "--image", "registry/thinkvl:1", "--volume", "runs:/data"
        )
        assert code == 0, output
        assert output.endswith("start it with: kubectl apply -f job.yaml")
        return list(yaml.safe_load_all((tmp_path / "job.yaml").read_text()))

    return write


def test_the_ray_job_has_the_nodes_and_results_on_the_volume(job):
    files, ray_job = job(LARGE, "rl.steps=7")
    spec = ray_job["spec"]["rayClusterSpec"]
    head, [workers] = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 3
    for group in (head, workers):
        [container] = group["template"]["spec"]["containers"]
        assert container["image"] == "registry/thinkvl:1"
        assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert mounts["shared"] == "/data"
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == "runs"
        assert volumes["files"]["configMap"]["name"] == files["metadata"]["name"]
    folder, command = ray_job["spec"]["entrypoint"].removeprefix("cd ").split(" && exec ")
    arguments = shlex.split(command)
    assert arguments[:5] == ["python", "-P", "-m", "rl.cli.cluster.entry", "run"]
    assert arguments[6:] == ["rl.steps=7", f"output_dir=/data/{yaml.safe_load(LARGE.read_text())['output_dir']}"]
    places = {item["path"]: item["key"] for item in volumes["files"]["configMap"]["items"]}
    recipe = os.path.relpath(f"{folder}/{arguments[5]}", mounts["files"])
    assert files["data"][places[recipe]] == LARGE.read_text()


def test_files_that_the_recipe_names_travel_in_the_config_map(job, tmp_path):
    (tmp_path / "my_reward.py").write_text("def score(completion, reference):\n    return 1.0\n")
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "question": "1+1?", "answer": "2", "image": "a.png"}\n')
    (tmp_path / "a.png").write_bytes(b"\x89PNG\xff\xfe")
    recipe = tmp_path / "mine.yaml"
    content = yaml.safe_load(QUICKSTART.read_text())
    [stage] = [stage for stage in content["stages"] if stage["kind"] == "rl"]
    stage["rewards"] = [{"use": "my_reward.py:score", "weight": 1.0}]
    content["data"]["held_out"] = [{"use": "rows.jsonl"}]
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    files, ray_job = job(recipe, "--gpus-per-node", 0)
    volumes = ray_job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    places = {item["path"]: item["key"] for item in volumes[0]["configMap"]["items"]}
    assert set(places) == {"job/mine.yaml", "job/my_reward.py", "job/rows.jsonl", "job/a.png"}
    assert files["data"][places["job/my_reward.py"]].startswith("def score")
    assert base64.b64decode(files["binaryData"][places["job/a.png"]]) == b"\x89PNG\xff\xfe"


def test_the_ray_job_fits_the_schema_of_kuberay(job):
    """KUBERAY_CRD names `ray.io_rayjobs.yaml` of KubeRay's release, which is not part of this repository."""
    if "KUBERAY_CRD" not in os.environ:
        pytest.skip("needs KUBERAY_CRD=PATH, KubeRay's own definition of a RayJob")
    definition = yaml.safe_load(Path(os.environ["KUBERAY_CRD"]).read_text())
    [schema] = [v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == "v1"]
    for recipe, options in ((LARGE, ()), (QUICKSTART, ("--gpus-per-node", 0, "--env", "HF_HOME=/data/hub"))):
        _, ray_job = job(recipe, *options)
        jsonschema.validate(ray_job, _closed(schema))


def _closed(schema):
    """The schema as the API server's strict validation reads it: unknown fields are errors."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and schema["properties"]:
        closed.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    return closed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--write", "job.txt"), "name the file *.sbatch for Slurm, or *.yaml for Kubernetes with KubeRay"),
        (("--write", "job.yaml"), "--image is missing"),
        (("--write", "job.yaml", "--image", "x"), "--volume is missing"),
        (("--write", "job.yaml", "--image", "x", "--volume", "c:data"), "the path must be absolute"),
        (
            ("output_dir=/tmp/lost", "--write", "job.yaml", "--image", "x", "--volume", "c"),
            "set output_dir=/shared/runs/lost",
        ),
        (("--write", "job.sbatch", "--image", "x"), "is for Kubernetes"),
        (("--write", "job.sbatch", "--pip", "x"), "--pip has no effect with --write"),
        (("--write", "job.sbatch", "--no-wait"), "--no-wait has no effect with --write"),
        (("--write", "job.sbatch", "--nodes", "0"), "--nodes 0: must be 1 or more"),
        (("--write", "job.sbatch", "--nodes", "2", "--gpus-per-node", "8"), "Raise --nodes to 4"),
        (("--write", "job.sbatch", "--env", "HF_TOKEN"), "its value would be written into job.sbatch"),
        (("--write", "job.sbatch", "rl.stepz=1"), "stepz"),
        (("--nodes", "2"), "--nodes has an effect only with --write FILE"),
    ],
)
def test_what_cannot_be_written_is_refused(submit, arguments, said, tmp_path):
    code, output = submit(LARGE, *arguments)
    assert code != 0
    assert said in output
    assert not list(tmp_path.iterdir())


def test_a_recipe_is_not_overwritten(submit, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(QUICKSTART.read_text())
    code, output = submit(recipe, "--write", "mine.yaml", "--image", "x", "--volume", "c", "--gpus-per-node", "0")
    assert code != 0
    assert "this is the recipe itself" in output
    assert recipe.read_text() == QUICKSTART.read_text()
