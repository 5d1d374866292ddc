"""Small files in the exact layout of each benchmark, two or three rows each."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image


def png(color="red", size=(32, 32)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format="PNG")
    return buffer.getvalue()


def cell(color="red"):
    """An image as `datasets` stores it in Parquet."""
    return {"bytes": png(color), "path": None}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def gif(path, colors, milliseconds=1000):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.new("RGB", (32, 32), color) for color in colors]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return path


METADATA = {
    "split": "testmini", "language": "english", "img_width": 32, "img_height": 32, "source": "SciBench",
    "category": "math-targeted-vqa", "task": "textbook question answering", "context": "scientific figure",
    "grade": "college", "skills": ["scientific reasoning"],
}  # fmt: skip


def mathvista(folder):
    shared = {"image": "images/1.jpg", "decoded_image": cell(), "metadata": METADATA, "precision": None, "unit": None}
    free = {"choices": None, "question_type": "free_form"}
    rows = [
        {**shared, **free, "pid": "1", "question": "How far?", "precision": 1.0, "answer": "1.2",
         "answer_type": "float", "query": "Hint: one decimal.\nQuestion: How far?"},
        {**shared, **free, "pid": "2", "question": "What volume?", "unit": "g", "answer": "1000",
         "answer_type": "integer", "query": ""},
        {**shared, "pid": "3", "question": "Which angle?", "choices": ["135°", "140°", "145°"], "answer": "145°",
         "question_type": "multi_choice", "answer_type": "text", "query": ""},
        {**shared, **free, "pid": "4", "question": "Which two years?", "answer": "[2014, 2016]",
         "answer_type": "list", "query": ""},
    ]  # fmt: skip
    write(folder / "data" / "testmini-00000-of-00001.parquet", rows)
    return folder


def mathvision(folder):
    shared = {"solution": None, "level": 2, "subject": "arithmetic", "decoded_image": cell()}
    rows = [
        {"id": "1", "question": "Which number?\n<image1>", "options": [], "answer": "60", "image": "images/1.jpg"},
        {"id": "2", "question": "Which bike?\n<image1>", "options": list("ABCDE"), "answer": "A", "image": "i/2.jpg"},
        {"id": "3", "question": "Which day?\n<image1> <image2>", "options": ["Mon", "Tue", "Wed", "Thu", "Fri"],
         "answer": "C", "image": "images/3.jpg"},
    ]  # fmt: skip
    write(folder / "data" / "test-00000-of-00001.parquet", [row | shared for row in rows])
    return folder


def mmmu(folder):
    def row(subject, number, **more):
        numbered = {f"image_{at}": None for at in range(1, 8)} | {"image_1": cell("red"), "image_2": cell("blue")}
        return numbered | {
            "id": f"validation_{subject}_{number}", "explanation": "", "topic_difficulty": "Easy", "subfield": "x",
            "img_type": "['Diagrams']", "options": "[]", "question_type": "open",
        } | more  # fmt: skip

    choice = row(
        "Art_Theory", 1, question="Compare <image 2> with <image 1>.", question_type="multiple-choice",
        options="['red', '<image 1>', 'it\\'s']", answer="C",
    )  # fmt: skip
    several = row("Math", 15, question="Evaluate <image 1>.", answer="['24/7', '3.429']")
    write(folder / "Art_Theory" / "validation-00000-of-00001.parquet", [choice])
    write(folder / "Math" / "validation-00000-of-00001.parquet", [several])
    write(folder / "Math" / "test-00000-of-00001.parquet", [row("Math", 16, question="Hidden <image 1>", answer="?")])
    return folder


def mmmu_pro(folder):
    options = "['Political instability', 'The spread of pathogens', 'New trade routes']"
    shared = {"id": "test_History_1", "options": options, "answer": "B", "subject": "History"}
    numbered = {f"image_{at}": None for at in range(1, 8)} | {"image_1": cell()}
    standard = shared | numbered | {"question": "What explains <image 1>?", "topic_difficulty": "Medium"}
    write(folder / "standard (10 options)" / "test-00000-of-00001.parquet", [standard])
    write(folder / "vision" / "test-00000-of-00001.parquet", [shared | {"image": cell()}])
    return folder


def mathverse(folder):
    question = "DE parallel BC, then angle CED is ()\nChoices:\nA:40°\nB:60°\nC:120°\nD:140°"
    details = {"split": "testmini", "source": "GeoQA", "subject": "Plane Geometry", "subfield": "Angle"}
    choice = {
        "sample_index": "1", "problem_index": "1", "problem_version": "Text Dominant", "question": question,
        "image": cell(), "answer": "D", "question_type": "multi-choice", "metadata": details,
        "query_wo": f"Please directly answer the question.\nQuestion: {question}", "query_cot": "First reason.",
    }  # fmt: skip
    free = choice | {
        "sample_index": "2", "question_type": "free-form", "question": "Find L.", "answer": "14",
        "query_wo": "Please directly answer the question.\nQuestion: Find L.",
    }  # fmt: skip
    write(folder / "testmini.parquet", [choice, free])
    jsonl(folder / "testmini_text_only.jsonl", [free | {"image": ""}])
    return folder


def chartqa(folder):
    rows = [
        {"type": "human_test", "question": "How many items?", "answer": "14", "image": cell()},
        {"type": "augmented_test", "question": "Which country?", "answer": "Japan", "image": cell()},
    ]
    write(folder / "data" / "test-00000-of-00001.parquet", rows)
    return folder


def geometry3k(folder):
    rows = [{"images": [cell()], "problem": "<image>Find $x$.", "answer": "2 \\sqrt { 221 }"}]
    write(folder / "data" / "test-00000-of-00001.parquet", rows)
    return folder


def clevr_count(folder):
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(png())
    question = "How many different items are there in the image?"
    jsonl(folder / "super.jsonl", [{"image_path": "./images/a.png", "question": question, "ground_truth": 4}])
    write(folder / "r1v.parquet", [{"image": cell(), "problem": question, "solution": "<answer> 3 </answer>"}])
    write(folder / "test-00000.parquet", [{"images": [cell()], "problem": question, "answer": "5"}])
    return folder


def ocrbench(folder):
    rows = [
        {"dataset": "IIIT5K", "question": "what is written in the image?", "question_type": "Regular Text Recognition",
         "answer": ["CENTRE"], "image": cell()},
        {"dataset": "HME100k", "question": "Please write out the expression.", "image": cell(),
         "question_type": "Handwritten Mathematical Expression Recognition", "answer": ["B a = C", "B a = C H"]},
    ]  # fmt: skip
    write(folder / "data" / "test-00000-of-00001.parquet", rows)
    return folder


def videommmu(folder):
    gif(folder / "videos" / "Art" / "validation_Art_1.gif", ["red", "green", "blue", "white", "black"])
    shared = {"id": "validation_Art_1", "link_selected": "https://example.org"}
    options = ["3, 3", "3, 4", "3, 5"]
    write(
        folder / "Perception" / "test-00000-of-00001.parquet",
        [shared | {"question": "How many?", "options": options, "answer": "B", "question_type": "perception"}],
    )
    write(
        folder / "Adaptation" / "test-00000-of-00001.parquet",
        [shared | {"question": "What mass? <image 1>", "options": [], "answer": "12.97", "question_type": "open"}],
    )
    return folder


MAKERS = {
    "mathvista": mathvista, "mathvision": mathvision, "mmmu": mmmu, "mmmu_pro": mmmu_pro, "mmmu_pro_vision": mmmu_pro,
    "mathverse": mathverse, "chartqa": chartqa, "geometry3k": geometry3k, "clevr_count": clevr_count,
    "ocrbench": ocrbench, "videommmu": videommmu,
}  # fmt: skip
