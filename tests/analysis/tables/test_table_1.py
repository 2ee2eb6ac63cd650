"""Table 1 is the layer lists, with the paper's multiply-adds below."""

from analysis.tables.table_1 import table_1


def test_table_1_as_in_the_paper():
    table = table_1().set_index("stage")
    assert table.output[:6].tolist() == ["112×112", "56×56", "28×28", "14×14", "7×7", "1×1"]
    assert table["34 layers"]["conv4_x"] == "[3×3, 256; 3×3, 256] × 6"
    assert table["152 layers"]["conv3_x"] == "[1×1, 128; 3×3, 128; 1×1, 512] × 8"
    assert (
        table["101 layers"]["conv2_x"] == "3×3 max pool, stride 2; [1×1, 64; 3×3, 64; 1×1, 256] × 3"
    )
    assert table.loc["multiply-adds"].tolist()[1:] == [
        "1.795e9",
        "3.644e9",
        "3.858e9",
        "7.570e9",
        "11.282e9",
    ]
    assert table.loc["the paper's FLOPs"].tolist()[1:] == [
        "1.8e9",
        "3.6e9",
        "3.8e9",
        "7.6e9",
        "11.3e9",
    ]
