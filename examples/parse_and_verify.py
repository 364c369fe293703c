"""Parse a reference with a digest, and verify a file against it. Needs neither store nor network.

python examples/parse_and_verify.py NAME@DIGEST FILE
"""

import sys

import fastoci


def main(text: str, path: str) -> int:
    reference = fastoci.Reference.parse(text)
    print(f"registry {reference.domain}, repository {reference.path}, digest {reference.digest}")
    hasher = fastoci.Sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    good = reference.digest == fastoci.Digest("sha256", hasher.hexdigest())
    print("verified" if good else f"the file is sha256:{hasher.hexdigest()}")
    return 0 if good else fastoci.errors.IntegrityError.exit_code


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except fastoci.errors.ReferenceSyntaxError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
