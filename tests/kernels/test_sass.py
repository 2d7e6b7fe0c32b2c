"""Machine code that reads registers which nothing wrote is found."""

import pytest

pytest.importorskip("triton")
from kernels.sass import uninitialized_reads

pytestmark = pytest.mark.quick


def code(*lines):
    """The lines as `nvdisasm -c` prints them; names with a colon are labels."""
    out, address = [".text.word_kernel:"], 0
    for line in lines:
        if line.endswith(":"):
            out.append(line)
        else:
            out.append(f"        /*{address:04x}*/                   {line} ;")
            address += 16
    return "\n".join(out)


def test_a_register_that_was_never_written_is_found():
    """As in triton 3.6's code of word attention with one stage."""
    wrong = code(
        "S2UR UR4, SR_CTAID.X",
        "UIADD3 UR14, UP0, UR14, 0x20",
        "UIADD3.X UR15, UR15, -0x3ffffff0, URZ, UP0, !UPT",
        "UMOV UR38, UR14",
        "UMOV UR39, UR15",
        "HGMMA.64x16x16.F32 R40, R52, gdesc[UR36].tnspB, R40",
        "EXIT",
    )
    assert uninitialized_reads(wrong) == [
        "0010 UIADD3 UR14, UP0, UR14, 0x20",
        "0020 UIADD3.X UR15, UR15, -0x3ffffff0, URZ, UP0, !UPT",
    ]
    right = wrong.replace("S2UR UR4, SR_CTAID.X", "UIADD3.64 UR14, UR4, UR6, URZ")
    right = right.replace(
        "        /*0000*/",
        "        /*0001*/  ULDC.64 UR4, c[0x0][0x208] ;\n"
        "        /*0002*/  ULDC.64 UR6, c[0x0][0x210] ;\n        /*0003*/",
    )
    assert uninitialized_reads(right) == []


def test_descriptors_of_both_operands_are_four_registers():
    body = ("ULDC.64 UR6, c[0x0][0x208]", "HGMMA.64x64x16.F32 R24, gdesc[UR4], R24, !UPT", "EXIT")
    assert uninitialized_reads(code(*body)) == [
        "0010 HGMMA.64x64x16.F32 R24, gdesc[UR4], R24, !UPT"
    ]
    assert not uninitialized_reads(code("ULDC.64 UR4, c[0x0][0x200]", *body))
    # one operand in registers: the descriptor is the last two
    assert not uninitialized_reads(code(body[0], "HGMMA.64x16x16.F32 R40, R52, gdesc[UR4], R40"))


def test_one_way_with_a_write_is_enough_and_jumps_are_followed():
    loop = (
        "@P0 BRA `(.L_x_1)",
        "UMOV UR8, URZ",
        ".L_x_1:",
        "LDG.E R2, desc[UR8][R2.64]",
        "@!P1 BRA `(.L_x_1)",
        "EXIT",
    )
    # UR8 is written on one way, UR9 on none
    assert uninitialized_reads(code(*loop)) == ["0020 LDG.E R2, desc[UR8][R2.64]"]
    assert not uninitialized_reads(code("UMOV UR9, URZ", *loop))
    skipped = ("BRA `(.L_x_2)", "UMOV UR8, UR70", ".L_x_2:", "EXIT")
    assert not uninitialized_reads(code(*skipped))


def test_nothing_is_found_in_nothing():
    assert uninitialized_reads("") == [] and uninitialized_reads(".text.k:\n.section x") == []
