import Testing

@testable import TaskSigning

struct TaskSigningTests {
    // Made with nkeys 0.2.1 and PyNaCl 1.6.2: nkeys.from_seed(seed).public_key, and .sign(b'{"task_id":"a","cmd":["true"]}').
    private static let seed = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y"
    private static let publicKey = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK"
    private static let task = Array(#"{"task_id":"a","cmd":["true"]}"#.utf8)
    private static let signature =
        "07486d340d736ac8b126fba971769f82973721946f3e6c919e304002930089f6"
        + "dcb97b7d5eb0b788ca6e183f61af6b0663bf56cf9738e63354f58cd91c316d03"

    private static func key() throws -> SigningKey { try #require(SigningKey(seed: seed)) }

    private static func flaw(_ task: [UInt8], _ trusted: SubmitterKey) -> TaskSignature.Flaw? {
        do throws(TaskSignature.Flaw) {
            _ = try TaskSignature.signer(of: task, trusted: [trusted])
            return nil
        } catch {
            return error
        }
    }

    @Test func keysAndSignaturesAreThoseOfOtherPrograms() throws {
        let key = try Self.key()
        #expect(key.publicKey.text == Self.publicKey)
        let signed = try #require(TaskSignature.sign(Self.task, with: key))
        let expected = #"{"task_id":"a","cmd":["true"],"signature":"\#(Self.publicKey):\#(Self.signature)"}"#
        #expect(String(decoding: signed, as: UTF8.self) == expected)
        #expect(Self.flaw(signed, key.publicKey) == nil)
    }

    @Test func whatIsNotSignedIsToldApart() throws {
        let key = try Self.key()
        let signed = try #require(TaskSignature.sign(Self.task, with: key))
        #expect(Self.flaw(Self.task, key.publicKey) == .unsigned)
        // In another place, in another form, cut.
        #expect(Self.flaw(Array(#"{"signature":"x","cmd":["true"]}"#.utf8), key.publicKey) == .unsigned)
        #expect(Self.flaw(signed + [0x20], key.publicKey) == .unsigned)
        #expect(Self.flaw(Array(signed.dropLast()), key.publicKey) == .unsigned)
        #expect(Self.flaw(Array(signed.suffix(TaskSignature.length)), key.publicKey) == .unsigned)
    }

    @Test func everyChangedByteOfTheTaskIsSeen() throws {
        let key = try Self.key()
        let signed = try #require(TaskSignature.sign(Self.task, with: key))
        for index in 0..<(Self.task.count - 1) {
            var changed = signed
            changed[index] ^= 1
            #expect(Self.flaw(changed, key.publicKey) == .forged(key.publicKey), "byte \(index)")
        }
    }

    @Test func whoIsNotKnownIsNotTrusted() throws {
        let key = try Self.key()
        let signed = try #require(TaskSignature.sign(Self.task, with: key))
        let other = SubmitterKey(bytes: [UInt8](repeating: 7, count: 32))
        #expect(Self.flaw(signed, other) == .untrusted(key.publicKey))
    }

    @Test func blanksBehindATaskAreNotSigned() throws {
        let key = try Self.key()
        let signed = TaskSignature.sign(Self.task, with: key)
        #expect(TaskSignature.sign(Self.task + Array(" \n".utf8), with: key) == signed)
        for nothing in ["", "{}", "{ }", "[1]"] {
            #expect(TaskSignature.sign(Array(nothing.utf8), with: key) == nil, "\(nothing)")
        }
    }

    @Test func keysOfOtherKindsAndWithErrorsAreRefused() throws {
        var damaged = Array(Self.publicKey.utf8)
        damaged[20] = damaged[20] == UInt8(ascii: "A") ? UInt8(ascii: "B") : UInt8(ascii: "A")
        for text in ["", "U", Self.seed, String(decoding: damaged, as: UTF8.self), Self.publicKey.lowercased()] {
            #expect(SubmitterKey(text) == nil)
        }
        #expect(SigningKey(seed: Self.publicKey) == nil)
        // An account's key.
        #expect(SubmitterKey(NKey.encode([0] + [UInt8](repeating: 7, count: 32))) == nil)
    }

    @Test func aListNamesItsKeysAndTellsTheLineThatIsWrong() throws {
        let list = try TrustedSubmitters("# people\n\n\(Self.publicKey)\tanna\n")
        #expect(list.keys.map(\.text) == [Self.publicKey])
        let wrong = #expect(throws: TrustedSubmitters.Problem.self) {
            try TrustedSubmitters("#\nanna \(Self.publicKey)")
        }
        #expect(wrong?.line == 2)
        let empty = #expect(throws: TrustedSubmitters.Problem.self) { try TrustedSubmitters("# nobody\n") }
        #expect(empty?.reason == "it names nobody")
    }
}
