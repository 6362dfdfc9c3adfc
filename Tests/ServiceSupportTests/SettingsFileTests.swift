import Testing

@testable import ServiceSupport

@Suite("Settings files are read as systemd reads them")
struct SettingsFileTests {
    private func values(_ text: String) throws -> [String] {
        try SettingsFile(parsing: Array(text.utf8), path: "x.conf").assignments.map {
            "\($0.line) \($0.key)=\($0.value)"
        }
    }

    @Test(arguments: [
        ("A=1\nB=2\n", ["1 A=1", "2 B=2"]),
        ("# no\n; no\n\n  A = 1 \t\n", ["4 A=1"]),
        ("A=b  # c", ["1 A=b  # c"]),
        ("A='x y' \nB=\"q\\\"\\$\\x\"\n", ["1 A=x y", "2 B=q\"$\\x"]),
        ("A=one\\\ntwo\nB=3\n", ["1 A=onetwo", "3 B=3"]),
        ("A='two\nlines'\nB=1", ["1 A=two\nlines", "3 B=1"]),
        ("A=\"a\\\nb\"\n", ["1 A=ab"]),
        ("A=\"x\" 'y'\n", ["1 A=xy"]),
        ("A=it's\n", ["1 A=it's"]),
        ("A=back\\\\slash\\n\n", ["1 A=back\\slashn"]),
        ("A=\nB=2\r\n", ["1 A=", "2 B=2"]),
        ("A=end\\ \n", ["1 A=end "]),
        ("A=1", ["1 A=1"]),
        ("\u{FEFF}A=1\n", ["1 A=1"]),
        ("export A=1\n", ["1 export A=1"]),
    ])
    func reads(_ text: String, _ expected: [String]) throws {
        #expect(try values(text) == expected)
    }

    @Test func aLineWithoutAnEqualsSignIsTold() throws {
        let file = try SettingsFile(parsing: Array("A=1\nwhat\nB=2".utf8), path: "x.conf")
        #expect(file.linesWithoutValue == [2])
        #expect(file.assignments.map(\.key) == ["A", "B"])
    }

    @Test(arguments: [
        ("A=1\nB='open\nC=2\n", "a quote is opened and never closed (in x.conf line 2)"),
        ("# comment \\\nA=1\n", "remove the backslash (in x.conf line 1)"),
        ("A=\0\n", "x.conf is not a text file in UTF-8"),
    ])
    func refuses(_ text: String, _ expected: String) {
        let error = #expect(throws: SettingsError.self) { try values(text) }
        #expect(error?.description.hasSuffix(expected) == true)
    }
}
