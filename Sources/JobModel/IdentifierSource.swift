/// Where a decision core gets its chance from: identifiers and jitter.
///
/// A value, so that the same seed gives the same decisions in a simulation; a shell seeds it from the system.
/// The generator is xoshiro256** (Blackman and Vigna, 2018). Identifiers name things; none of them is a secret.
package struct IdentifierSource: Sendable {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    /// A source that gives the same sequence for the same seed.
    package init(seed: UInt64) {
        var word = seed
        func next() -> UInt64 {
            word &+= 0x9E37_79B9_7F4A_7C15
            var mixed = word
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return mixed ^ (mixed >> 31)
        }
        state = (next(), next(), next(), next())
    }

    /// A source seeded with 256 bits from the operating system.
    package init() {
        var system = SystemRandomNumberGenerator()
        state = (system.next(), system.next(), system.next(), system.next() | 1)
    }

    /// The next 64 random bits.
    package mutating func next() -> UInt64 {
        let product = state.1 &* 5
        let result = ((product << 7) | (product >> 57)) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = (state.3 << 45) | (state.3 >> 19)
        return result
    }

    /// A number in 0 ..< 1.
    package mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// 96 random bits as 24 hexadecimal digits: enough that two never meet.
    package mutating func hexadecimal() -> String {
        let digits: StaticString = "0123456789abcdef"
        return Self.digits(next(), count: 12, bits: 4, alphabet: digits)
            + Self.digits(next(), count: 12, bits: 4, alphabet: digits)
    }

    /// The lowest `count` digits of a number in Crockford's base 32, lower case; sorts as the number does.
    static func base32(_ value: UInt64, count: Int) -> String {
        digits(value, count: count, bits: 5, alphabet: "0123456789abcdefghjkmnpqrstvwxyz")
    }

    private static func digits(_ value: UInt64, count: Int, bits: UInt64, alphabet: StaticString) -> String {
        let symbols = Array("\(alphabet)".utf8)
        let mask = (UInt64(1) << bits) - 1
        return String(
            decoding: (0..<count).reversed().map { symbols[Int((value >> (UInt64($0) * bits)) & mask)] },
            as: UTF8.self
        )
    }
}

extension IdentifierSource: RandomNumberGenerator {}
