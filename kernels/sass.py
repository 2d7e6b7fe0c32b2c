"""Find reads of uniform registers that nothing wrote, in the machine code (SASS) of a kernel.

ptxas 12.8.93, which triton 3.6 uses for sm_90, can build the descriptor of a wgmma operand from
such a register: HGMMA then reads shared memory at a random place, which gave wrong values or an
illegal memory access on an H200. PTX is correct there, so only the machine code shows it.
"""

from __future__ import annotations

import re
from collections import deque

_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;")
_PARTS = re.compile(r"^(@!?U?P\w+\s+)?([A-Z0-9_.x]+)\s*(.*)$")
# Opcodes that begin with U and have no uniform register as their destination; and others that have.
_NO_DESTINATION = {
    "UISETP", "UPLOP3", "UPSETP", "UFSETP", "UTMALDG", "UTMASTG", "UTMACMDFLUSH", "UBLKCP",
    "UBLKPF", "UTMAPF", "UTMAREDG",
}  # fmt: skip
_DESTINATION = {"R2UR", "S2UR", "VOTEU", "REDUX", "CS2UR", "LDCU", "CREDUX"}


def uninitialized_reads(sass: str) -> list[str]:
    """Return the instructions that read a uniform register (UR) which nothing wrote before.

    They show a miscompiled kernel, which may crash or give wrong results; the list is empty for
    correct code. sass: the output of `nvdisasm -c` for compute capability 9.0. Each item is an
    address and an instruction, "05e0 UIADD3 UR14, UP0, UR14, 0x20".
    """
    out = []
    for section in re.split(r"(?m)^\.text\.", sass)[1:]:
        out += _reads_of_section(section)
    return out


def _reads_of_section(section: str) -> list[str]:
    """Return the instructions of one kernel that read a uniform register before it is written.

    They show that ptxas miscompiled the kernel; the list is empty for correct code. section: the
    kernel's part of the output of `nvdisasm -c`. All paths of its control flow are followed; a
    register counts as written if at least one path to the instruction writes it.
    """
    code: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in section.splitlines():
        if line.startswith(".section"):
            break
        if label := re.match(r"^(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif instruction := _INSTRUCTION.match(line):
            code.append((instruction[1], instruction[2]))
    if not code:
        return []
    written: list[set[int]] = [set() for _ in code]  # on some way to the instruction
    reached = {0}
    waiting = deque([0])
    while waiting:
        i = waiting.popleft()
        after = written[i] | _registers(code[i][1])[1]
        for j in _successors(i, code[i][1], labels, len(code)):
            if j not in reached or not after <= written[j]:
                reached.add(j)
                written[j] |= after
                waiting.append(j)
    return [" ".join(code[i]) for i in sorted(reached) if _registers(code[i][1])[0] - written[i]]


def _successors(i: int, text: str, labels: dict[str, int], count: int) -> list[int]:
    """Return the indices of the instructions that can run directly after instruction `i`.

    text: the instruction. labels: index of the instruction at each label. count: of all
    instructions.
    """
    parts = _PARTS.match(text)
    assert parts
    predicate, opcode, rest = parts.groups()
    base = opcode.partition(".")[0]
    following = [i + 1] if i + 1 < count else []
    target = re.search(r"`\((\.L_x_\d+)\)", rest)
    if base in ("BRA", "CALL", "BRX", "JMP") and target and target[1] in labels:
        conditional = predicate or "BRA.DIV" in opcode or base == "CALL"
        conditional = conditional or re.match(r"!?U?P\d", rest)
        return [labels[target[1]], *(following if conditional else [])]
    if base in ("EXIT", "RET") and not predicate:
        return []
    return following


def _registers(text: str) -> tuple[set[int], set[int]]:
    """Return the numbers of the uniform registers that an instruction (SASS) reads and writes.

    text: the instruction, "UIADD3 UR14, UP0, UR14, 0x20". Returns two sets: (reads, writes).
    """
    parts = _PARTS.match(text)
    assert parts
    _, opcode, rest = parts.groups()
    base, sources = opcode.partition(".")[0], rest
    reads: set[int] = set()
    writes: set[int] = set()
    operands = [operand.strip() for operand in rest.split(",")]
    uniform = (base[0] == "U" and base not in _NO_DESTINATION) or base in _DESTINATION
    if uniform and (destination := re.match(r"UR(\d+)", operands[0])):
        first = int(destination[1])
        wide = re.search(r"\.64\b|\.WIDE", opcode) and "U64.HI" not in opcode
        writes = {first, first + 1} if wide else {first}
        sources = ", ".join(operands[1:])
    for found in re.finditer(r"gdesc\[UR(\d+)\]", sources):
        # four registers for two operands in shared memory, the last two if one is in registers
        first = int(found[1])
        both = re.match(r"R\d+, gdesc", rest)
        reads |= set(range(first if both else first + 2, first + 4))
    sources = re.sub(r"gdesc\[UR\d+\]", "", sources)
    for found in re.finditer(r"desc\[UR(\d+)\]", sources):
        reads |= {int(found[1]), int(found[1]) + 1}
    for found in re.finditer(r"UR(\d+)", re.sub(r"desc\[UR\d+\]", "", sources)):
        reads.add(int(found[1]))
        if base == "UIADD3" and ".64" in opcode:
            reads.add(int(found[1]) + 1)
    return reads, writes
