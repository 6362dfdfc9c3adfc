import Testing

import WireJSON

@Suite struct JSONTests {
    private func parse(_ text: String) throws -> JSON { try JSON(parsing: Array(text.utf8)) }

    @Test(arguments: [
        #"{"a":1,"b":[true,false,null],"c":{"d":"x"}}"#, "[]", "{}", #""text""#, "-0.5e10", "12345678901234567890123",
        #"["ü","🐟"]"#,
    ])
    func writesBackWhatItRead(text: String) throws {
        #expect(String(decoding: try parse(text).encoded(), as: UTF8.self) == text)
    }

    @Test(arguments: [
        "", "  ", "{", "[1,", #"{"a"}"#, #"{"a":}"#, "tru", "nul", "NaN", "Infinity", "01", "1.", "1e", "-", "+1",
        "'a'",
        #""abc"#, "[1 2]", "{\"a\":1,}", "1 2", #"{"a":1,"a":2}"#, #""\x""#, #""\u12""#, #""\ud800""#, #""\ud800A""#,
        "\"a\nb\"", "\u{FEFF}{}",
    ])
    func refusesMalformedText(text: String) {
        #expect(throws: JSONError.self) { try parse(text) }
    }

    @Test func refusesInvalidUTF8AndSaysWhere() {
        #expect(throws: JSONError("the string is not valid UTF-8", offset: 2)) {
            try JSON(parsing: [0x5B, 0x22, 0xFF, 0x22, 0x5D])
        }
    }

    @Test func refusesDeepNestingBeforeTheStackEnds() {
        let deep = String(repeating: "[", count: 1_000_000)
        #expect(throws: JSONError("nested deeper than 64 levels", offset: 64)) { try parse(deep) }
    }

    @Test func refusesMoreElementsThanTheLimit() {
        let limits = JSONLimits(depth: 4, elements: 3)
        #expect(throws: JSONError.self) { try JSON(parsing: Array("[1,2,3,4]".utf8), limits: limits) }
        #expect(throws: Never.self) { try JSON(parsing: Array("[1,2,3]".utf8), limits: limits) }
    }

    @Test func readsEscapes() throws {
        #expect(try parse(#""a\n\t\"\\\/é🐟\u0000""#) == .string("a\n\t\"\\/é🐟\0"))
    }

    @Test func escapesControlCharacters() {
        #expect(
            String(decoding: JSON.string("\u{1}\u{1F}\u{7F}\n").encoded(), as: UTF8.self) == #""\u0001\u001f\u007f\n""#
        )
    }

    @Test func numbersAreExact() throws {
        #expect(try parse("9007199254740993").intValue == 9_007_199_254_740_993)
        #expect(try parse("18446744073709551615").unsignedValue == .max)
        #expect(try parse("30.0").intValue == 30)
        #expect(try parse("30.5").intValue == nil)
        #expect(try parse("1e400").doubleValue == nil)
        #expect(try parse("1e400").intValue == nil)
        #expect(JSON.double(.nan) == .null)
        #expect(JSON.double(2.5).encoded() == Array("2.5".utf8))
        #expect(JSON.double(3).encoded() == Array("3".utf8))
    }

    @Test func fieldsKeepTheBytesOfEachValue() throws {
        let text = #" { "a" : {"x": 1 , "y":[ ] } , "b":"ü" ,"c": 1.50 } "#
        let fields = try JSONFields(parsing: Array(text.utf8))
        #expect(fields.fields.map(\.key) == ["a", "b", "c"])
        #expect(fields.raw("a").map { String(decoding: $0, as: UTF8.self) } == #"{"x": 1 , "y":[ ] }"#)
        #expect(fields.raw("c").map { String(decoding: $0, as: UTF8.self) } == "1.50")
        #expect(try fields.value("b") == "ü")
        #expect(try fields.value("d") == nil)
    }

    @Test(arguments: [#"{"a":{"b":}}"#, #"{"a":1} x"#, "[1]", #"{"a":1,"a":1}"#])
    func fieldsCheckTheWholeText(text: String) {
        #expect(throws: JSONError.self) { try JSONFields(parsing: Array(text.utf8)) }
    }

    /// Few keys are compared with each other, many are hashed.
    @Test(arguments: [2, 31, 32, 33, 34, 500]) func aKeyIsRefusedTheSecondTimeWhereverItStands(count: Int) throws {
        let fields = (0..<count).map { #""key-\#($0)":\#($0)"# }
        #expect(try JSONFields(parsing: Array("{\(fields.joined(separator: ","))}".utf8)).fields.count == count)
        for again in [0, count / 2, count - 1] {
            let text = "{\((fields + [fields[again]]).joined(separator: ","))}"
            #expect(throws: JSONError.self) { try JSONFields(parsing: Array(text.utf8)) }
            #expect(throws: JSONError.self) { try parse("[\(text)]") }
        }
    }

    @Test func objectsSetReplaceAndRemove() {
        var object = JSONObject([("a", 1), ("b", 2)])
        object["a"] = 3
        object["b"] = nil
        object["c"] = 4
        #expect(JSON.object(object).encoded() == Array(#"{"a":3,"c":4}"#.utf8))
    }

    @Test func writerJoinsRawAndTypedFields() {
        var writer = JSONWriter()
        writer.beginObject()
        writer.field("a", raw: "[1]".utf8)
        writer.field("b", "x")
        writer.key("c")
        writer.beginArray()
        writer.int(1)
        writer.bool(true)
        writer.endArray()
        writer.field("d", JSON.null)
        writer.endObject()
        #expect(String(decoding: writer.bytes, as: UTF8.self) == #"{"a":[1],"b":"x","c":[1,true],"d":null}"#)
    }
}
