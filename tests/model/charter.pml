/*
 * How members decide one epoch by INTENT and RATIFY (protocol, sections 7.2 to 7.4), small enough to try every order.
 *
 * HONEST members may at any time sign any vote that the rules allow, for either of two rival drafts. FAULTY members
 * have signed every possible vote, in every round; so they need no process, and each quorum needs that many honest
 * members less. Messages need no channel either: each rule asks whether enough votes exist, and none asks whether one
 * is missing, so a message that is lost, late or out of order is a member that does not act on it yet, and that is one
 * of the runs below. The wait before a member enters a round (7.4) only makes fewer runs.
 *
 * Asserted: two drafts are never certified. WITHOUT_... removes one clause; README.md lists them.
 */

#ifndef HONEST
#define HONEST 3
#endif
#ifndef FAULTY
#define FAULTY 1
#endif
#ifndef ROUNDS
#define ROUNDS 3 /* at most 4 */
#endif

#define QUORUM (2 * (HONEST + FAULTY) / 3 + 1)
#define AT(round, draft) (2 * (round) + (draft))
#define HAS(set, m) (((set) >> (m)) & 1)
#define ENOUGH(set) (HAS(set, 0) + HAS(set, 1) + HAS(set, 2) + HAS(set, 3) + HAS(set, 4) + FAULTY >= QUORUM)

byte intents[10];      /* for each round and draft the honest members that signed an INTENT, a bit each */
byte ratified[10];     /* likewise RATIFY */
byte latest[HONEST];   /* the highest round of any vote by this member */
byte locked[HONEST];   /* the round of its last RATIFY, 0 before the first */
bit held[HONEST];      /* the draft of that RATIFY */

#define IN_ROUND(readings, m, round) HAS(readings[AT(round, 0)] | readings[AT(round, 1)], m)
#define CERTIFICATE(round, draft) ENOUGH(intents[AT(round, draft)])
#define CERTIFICATE_IN(round, from, before, draft) ((from) <= round && round < (before) && CERTIFICATE(round, draft))
#define CERTIFICATE_FROM(from, before, draft) \
  (CERTIFICATE_IN(1, from, before, draft) || CERTIFICATE_IN(2, from, before, draft) \
   || CERTIFICATE_IN(3, from, before, draft))

#ifdef WITHOUT_ONE_INTENT
#define FIRST_INTENT(m, round, draft) !HAS(intents[AT(round, draft)], m)
#else
#define FIRST_INTENT(m, round, draft) !IN_ROUND(intents, m, round)
#endif

#ifdef WITHOUT_ONE_RATIFY
#define FIRST_RATIFY(m, round, draft) !HAS(ratified[AT(round, draft)], m)
#else
#define FIRST_RATIFY(m, round, draft) !IN_ROUND(ratified, m, round)
#endif

#ifdef WITHOUT_MONOTONE_INTENT
#define INTENT_FORWARD(m, round) true
#else
#define INTENT_FORWARD(m, round) latest[m] <= round
#endif

#ifdef WITHOUT_MONOTONE_RATIFY
#define RATIFY_FORWARD(m, round) true
#else
#define RATIFY_FORWARD(m, round) latest[m] <= round
#endif

/* An INTENT names as `unlock` a certificate for its own draft, of a later round than the lock, or not earlier if it
 * stays with the draft that the member holds. */
#if defined(WITHOUT_LOCK)
#define UNLOCKED(m, round, draft) true
#elif defined(WITHOUT_OWN_BODY)
#define UNLOCKED(m, round, draft) \
  (CERTIFICATE_FROM(locked[m] + (held[m] != draft), round, 0) \
   || CERTIFICATE_FROM(locked[m] + (held[m] != draft), round, 1))
#elif defined(WITHOUT_LATER)
#define UNLOCKED(m, round, draft) CERTIFICATE_FROM(1, round, draft)
#elif defined(WITHOUT_STRICTLY_LATER)
#define UNLOCKED(m, round, draft) CERTIFICATE_FROM(locked[m], round, draft)
#else
#define UNLOCKED(m, round, draft) CERTIFICATE_FROM(locked[m] + (held[m] != draft), round, draft)
#endif

#ifdef WITHOUT_CERTIFICATE_AT_HAND
#define AT_HAND(round, draft) true
#else
#define AT_HAND(round, draft) CERTIFICATE(round, draft)
#endif

/* A certificate of the epoch is a quorum of RATIFYs of one round and the intent-certificate that they had at hand. */
#if defined(WITHOUT_ONE_ROUND)
#define DECIDED(round, draft) \
  ENOUGH(ratified[AT(1, draft)] | ratified[AT(2, draft)] | ratified[AT(3, draft)] | ratified[AT(4, draft)])
#elif defined(WITHOUT_CERTIFICATE_CARRIED)
#define DECIDED(round, draft) ENOUGH(ratified[AT(round, draft)])
#else
#define DECIDED(round, draft) (ENOUGH(ratified[AT(round, draft)]) && CERTIFICATE(round, draft))
#endif

bit decided[2];

/* INTENT goes before RATIFY within a round: its `last_ratified` is of an earlier one. */
#define INTENT(m, round, draft) \
  :: d_step { \
    FIRST_INTENT(m, round, draft) && !IN_ROUND(ratified, m, round) && INTENT_FORWARD(m, round) \
      && (locked[m] == 0 || UNLOCKED(m, round, draft)) -> \
    printf("member %d: INTENT round %d draft %d (locked by round %d)\n", m, round, draft, locked[m]); \
    intents[AT(round, draft)] = intents[AT(round, draft)] | (1 << m); \
    if :: latest[m] < round -> latest[m] = round :: else fi }

#define RATIFY(m, round, draft) \
  :: d_step { \
    FIRST_RATIFY(m, round, draft) && RATIFY_FORWARD(m, round) && AT_HAND(round, draft) -> \
    printf("member %d: RATIFY round %d draft %d\n", m, round, draft); \
    ratified[AT(round, draft)] = ratified[AT(round, draft)] | (1 << m); \
    if :: latest[m] < round -> latest[m] = round :: else fi; \
    if :: locked[m] <= round -> locked[m] = round; held[m] = draft :: else fi; \
    if :: DECIDED(round, draft) -> decided[draft] = 1 :: else fi; \
    assert(!(decided[0] && decided[1])) }

#define READINGS(m, round) INTENT(m, round, 0) INTENT(m, round, 1) RATIFY(m, round, 0) RATIFY(m, round, 1)

active [HONEST] proctype member() {
  end: do
  READINGS(_pid, 1)
  READINGS(_pid, 2)
#if ROUNDS > 2
  READINGS(_pid, 3)
#endif
#if ROUNDS > 3
  READINGS(_pid, 4)
#endif
  od
}
